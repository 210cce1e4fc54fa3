// The browser's part of the explorer: where the pointer is, one request at a time, and the URL.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const MOST_WAIT = 10000; // ms after which a request without an answer is given up
  const STILL = 4; // pixels that the pointer may move in a click
  const state = { serial: 0, busy: false, sent: 0, newest: null, held: "", timer: null, down: null };

  // --- the pointer ------------------------------------------------------------------------------

  function place(event) {
    const target = event.target.closest ? event.target.closest("#map") : null;
    const plot = target && target.querySelector(".js-plotly-plot");
    if (!plot || !plot._fullLayout || !plot._fullLayout.xaxis) return null;
    const { xaxis, yaxis } = plot._fullLayout;
    const box = plot.getBoundingClientRect();
    const across = event.clientX - box.left - xaxis._offset;
    const down = event.clientY - box.top - yaxis._offset;
    if (across < 0 || down < 0 || across > xaxis._length || down > yaxis._length) return null;
    return { u: xaxis.p2d(across), v: yaxis.p2d(down) };
  }

  document.addEventListener("mousemove", (event) => {
    const at = place(event);
    if (at) dash.set_props("pointer", { data: { n: ++state.serial, ...at } });
  });
  // Plotly covers the page while the mouse is down, so a click is a press and a release close by.
  document.addEventListener("mousedown", (event) => {
    const at = event.button === 0 ? place(event) : null;
    state.down = at && { at, x: event.clientX, y: event.clientY };
  }, true);
  document.addEventListener("mouseup", (event) => {
    const down = state.down;
    state.down = null;
    if (!down) return;
    if (Math.hypot(event.clientX - down.x, event.clientY - down.y) > STILL) return;
    dash.set_props("clicked", { data: { n: ++state.serial, ...down.at } });
  }, true);

  // A request without an answer, because the server failed, does not block those after it.
  function giveUp(serial) {
    if (!state.busy || state.sent !== serial) return;
    state.busy = false;
    if (state.newest.n !== serial) {
      dash.set_props("pointer", { data: { ...state.newest, n: ++state.serial } });
    }
  }

  // --- callbacks --------------------------------------------------------------------------------

  const same = (a, b) =>
    Array.isArray(a) && Array.isArray(b) && a.length === b.length &&
    a.every((value, k) => Math.abs(value - b[k]) <= 1e-4 * (1 + Math.abs(value)));

  dash.explorer = {
    // One request is under way at a time. The pointer that is newest when it is answered goes next.
    throttle(pointer, answered) {
      state.newest = pointer;
      if (answered && answered.n === state.sent) state.busy = false;
      if (!pointer || pointer.n === state.sent || state.busy) return dash.no_update;
      Object.assign(state, { busy: true, sent: pointer.n });
      setTimeout(() => giveUp(pointer.n), MOST_WAIT);
      return pointer;
    },

    // Sliders follow the chosen point ...
    spread(point) {
      if (!point) return dash.no_update;
      state.held = point;
      return [point];
    },

    // ... and move it: the image at once, the point itself when they rest.
    slid(values) {
      if (!values.length) return dash.no_update;
      if (same(values, state.held)) return { n: ++state.serial, z: state.held };
      clearTimeout(state.timer);
      state.timer = setTimeout(() => dash.set_props("point", { data: values }), 300);
      return { n: ++state.serial, z: values };
    },

    // The view is in the URL, and comes back from it.
    remember(...values) {
      const names = values.pop();
      const query = new URLSearchParams();
      names.forEach((name, k) => {
        const value = values[k];
        if (value === null || value === undefined || value.length === 0) return;
        const short = (_, v) => (typeof v === "number" ? Number(v.toPrecision(9)) : v);
        query.set(name, JSON.stringify(value, short));
      });
      window.history.replaceState(null, "", "?" + query.toString());
      return dash.no_update;
    },
    restore(search, names) {
      const query = new URLSearchParams(search || "");
      return names.map((name) => {
        if (!query.has(name)) return dash.no_update;
        try {
          return JSON.parse(query.get(name));
        } catch (error) {
          return dash.no_update; // a URL that was edited by hand
        }
      });
    },

    // The map as it is on the screen.
    picture(clicks) {
      const plot = document.querySelector("#map .js-plotly-plot");
      if (clicks && plot) {
        window.Plotly.downloadImage(plot, { format: "png", scale: 2, filename: "latent-map" });
      }
      return dash.no_update;
    },
  };
})();
