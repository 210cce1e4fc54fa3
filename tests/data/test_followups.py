from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from chartae.data import Sequences, check_disjoint, read_sequences, write_sequences
from chartae.errors import ConfigurationError, DataError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
NAN = float("nan")
TABLE = """individual,time,sex,age,memory,speed
ann,1.5,f,70,27,
bo,0.25,m,65.5,30,2.5
ann,0,f,70,29,1.5
bo,2,m,65.5,NA,
"""


def equal(one, other, *, form=True):
    """Whether two sets have the same tensors, names and form."""
    return (
        one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
        and torch.equal(one.padding, other.padding)
        and (one.ids, one.class_names) == (other.ids, other.class_names)
        and one.covariate_names == other.covariate_names
        and (not form or one.form == other.form)
    )


@pytest.fixture
def csv(tmp_path):
    def write(text, name="scores.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


# --- scores -----------------------------------------------------------------------------------


def test_scores_are_read_by_individual(csv):
    data = read_sequences(csv(TABLE), scores=["memory", "speed"])
    assert data.ids == ("ann", "bo")
    assert data.times.tolist() == [[0.0, 1.5], [0.25, 2.0]]
    assert data.x.tolist() == [[[29.0, 1.5], [27.0, 0.0]], [[30.0, 2.5], [0.0, 0.0]]]
    assert data.mask.tolist() == [[[True, True], [True, False]], [[True, True], [False, False]]]
    assert data.observed.tolist() == [[True, True], [True, False]]
    assert not data.padding.any()
    assert data.form.columns == ("memory", "speed")


def test_other_columns_are_scores(csv):
    data = read_sequences(csv(TABLE), covariates=["sex", "age"])
    assert data.form.columns == ("memory", "speed")
    assert data.covariate_names == ("sex=f", "sex=m", "age")
    assert data.y.tolist() == [[1.0, 0.0, 70.0], [0.0, 1.0, 65.5]]


@pytest.mark.parametrize("names", [["sex=m", "age"], ["sex=x", "age"]])
def test_covariates_can_be_coded_as_in_another_file(csv, names):
    data = read_sequences(csv(TABLE), covariates=names)
    assert data.covariate_names == tuple(names)
    assert data.y[:, 0].tolist() == [0.0, float(names[0] == "sex=m")]
    assert data.form.columns == ("memory", "speed")


def test_one_covariate_of_text_or_with_classes_is_a_class(csv):
    sex = read_sequences(csv(TABLE), covariates=["sex"], scores=["memory"])
    assert (sex.class_names, sex.y.tolist(), sex.covariate_names) == (("f", "m"), [0, 1], ("sex",))
    age = read_sequences(csv(TABLE), covariates=["age"], scores=["memory"])
    assert (age.y.tolist(), age.covariate_names) == ([[70.0], [65.5]], ("age",))
    classes = read_sequences(
        csv(TABLE), covariates=["age"], class_names=["65.5", "70"], scores=["memory"]
    )
    assert classes.y.tolist() == [1, 0]


def test_a_data_frame_gives_the_same(csv):
    path = csv(TABLE)
    for frame in (pd.read_csv(path), pd.read_csv(path).convert_dtypes()):
        for covariates in (["sex"], ["sex", "age"]):
            options = {"covariates": covariates, "scores": ["memory", "speed"]}
            assert equal(read_sequences(frame, **options), read_sequences(path, **options))


def test_columns_can_have_other_names_and_text_files_other_separators(csv):
    path = csv("patient;week;cd4\n1;0;5\n1;2;4\n", "trial.tsv")
    data = read_sequences(path, individual="patient", time="week")
    assert (data.ids, data.x[0, :, 0].tolist()) == (("1",), [5.0, 4.0])


def test_columns_keep_their_names_in_any_file(csv, tmp_path):
    path = csv(TABLE.replace("individual,time", "patient,years"), "clinic.csv")
    read = read_sequences(path, individual="patient", time="years", covariates=["sex"])
    assert read.key_columns == read.subset([1]).at([9.0]).key_columns == ("patient", "years")
    write_sequences(tmp_path / "again.csv", read)
    assert (tmp_path / "again.csv").read_text().startswith('"patient","years","sex","age"')
    write_sequences(tmp_path / "again.npz", read)
    assert read_sequences(tmp_path / "again.npz").key_columns == ("patient", "years")
    write_sequences(tmp_path / "plain.npz", Sequences(np.ones((2, 3, 1)), times=[0, 1, 2]))
    assert read_sequences(tmp_path / "plain.npz").key_columns == ("individual", "time")


@pytest.mark.parametrize("names", ["ab", ["a"], ["a", "a"], ["", "a"]])
def test_columns_of_individuals_and_times_are_two(names):
    with pytest.raises(ConfigurationError, match="key_columns="):
        Sequences(np.ones((2, 3, 1)), times=[0, 1, 2], key_columns=names)


def test_columns_of_one_name_are_refused_before_images_are_written(tmp_path):
    x = np.ones((2, 3, 4, 4))
    data = Sequences(x, times=[0, 1, 2], key_columns=("file", "time"))
    with pytest.raises(ConfigurationError, match="'file'"):
        write_sequences(tmp_path / "images", data)
    assert not (tmp_path / "images").exists()


def test_integers_that_pandas_made_floats_are_the_same_names():
    frame = pd.DataFrame({"individual": [1.0, 2.0], "time": [0, 0], "a": [1, 2]})
    assert read_sequences(frame).ids == ("1", "2")


def test_missing_cells_of_covariates_do_not_count(csv):
    text = "individual,time,sex,a\nx,0,NA,1\nx,1,f,1\ny,0,m,2\ny,1,,2\n"
    assert read_sequences(csv(text), covariates=["sex"]).class_names == ("f", "m")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("individual,time,a\n", {}, "at least one sample"),
        ("id,time,a\n1,0,1\n", {}, r"individual='individual' is not a column of .*'id', 'time'"),
        ("individual,t,a\n1,0,1\n", {}, "time='time' is not a column"),
        (
            "individual,time,a\nx,2020-01-31,1\n",
            {},
            "line 2: column 'time' is '2020-01-31', expected a number; times are numbers: convert",
        ),
        ("individual,time,a\nx,0,1\nx,,1\n", {}, "no time in column 'time' at line 3"),
        ("individual,time,a\nx,0,1\n,1,1\n", {}, "no name in column 'individual' at line 3"),
        (
            "individual,time,a\nx,0,1\ny,0,1\nx,0.0,2\n",
            {},
            "two visits at one time: 'x' .*line 2, line 4",
        ),
        ("individual,time,a\nx,0,1\ny,0,\n", {}, "without an observed visit: 'y'"),
        ("individual,time,a,b\nx,0,1,\ny,0,1,\n", {}, "no value in columns 'b'"),
        ("individual,time\nx,0\n", {}, "no column of scores"),
        ("individual,time,a,s\nx,0,1,f\n", {}, r"columns 's' that are not numbers: .*covariates"),
        ("individual,time,a\nx,0,one\n", {"scores": ["a"]}, "line 2: column 'a' is 'one'"),
        ("individual,time,a\nx,0,1\n", {"scores": ["b"]}, "scores='b' is not a column"),
        ("individual,time,a\nx,0,1\n", {"covariates": ["b"]}, "covariates='b' is not a column"),
        (
            "individual,time,a,s\nx,0,1,f\nx,1,1,m\n",
            {"covariates": ["s"]},
            "covariate 's' varies within individuals 'x'",
        ),
        (
            "individual,time,a,s\nx,0,1,f\ny,1,1,\n",
            {"covariates": ["s"]},
            "covariate 's' is missing for individuals 'y'",
        ),
        ("individual,time,a,a\nx,0,1,2\n", {}, "columns 'a' more than once"),
    ],
)
def test_tables_that_do_not_fit_are_refused(csv, text, options, message):
    with pytest.raises(DataError, match=message):
        read_sequences(csv(text), **options)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"individual": [], "time": [], "a": []}, "the DataFrame is empty"),
        (
            {"individual": [1], "time": pd.to_datetime(["2020-01-31"]), "a": [1]},
            "column 'time' has dtype datetime64.*convert dates",
        ),
        ({"individual": [1], "time": ["0"], "a": [1]}, "'time' has dtype (object|str)"),
        ({"individual": [1], "time": [NAN], "a": [1]}, "no time in column 'time' at row 0"),
        ({"individual": [None, "x"], "time": [0, 1], "a": [1, 1]}, "no name .* at row 0"),
    ],
)
def test_data_frames_that_do_not_fit_are_refused(frame, message):
    with pytest.raises(DataError, match=message):
        read_sequences(pd.DataFrame(frame))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_key": "x"}, "x_key='x' is not an option of a table source"),
        ({"scores": "memory"}, "expected a sequence of names"),
        ({"covariates": "sex"}, "expected a sequence of names"),
        ({"scores": ["age"], "covariates": ["age"]}, "'age', which are used otherwise"),
        ({"covariates": ["sex", "age"], "class_names": ["f", "m"]}, "expected one column"),
    ],
)
def test_options_that_do_not_fit_are_refused(csv, options, message):
    with pytest.raises(ConfigurationError, match=message):
        read_sequences(csv(TABLE), **options)


@pytest.mark.parametrize("source", ["nothing", "nothing.csv", "nothing.npz", "data.txt", 3])
def test_other_sources_are_refused(source):
    with pytest.raises(DataError):
        read_sequences(source)


# --- images -----------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 6, 5), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    for name, image in zip(("a/0.png", "a/1.png", "b.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "visits.csv").write_text(
        "individual,time,file,sex\nann,2,a/1.png,f\nann,0,a/0.png,f\nbo,1,b.png,m\nbo,3,,m\n"
    )
    return tmp_path, pixels


def test_images_are_read_by_individual(images):
    folder, pixels = images
    data = read_sequences(folder, covariates=["sex"])
    expected = Sequences(
        np.stack([pixels[:2], np.stack([pixels[2], np.zeros_like(pixels[2])])]),
        times=[[0.0, 2.0], [1.0, 3.0]],
        observed=[[True, True], [True, False]],
        ids=["ann", "bo"],
        covariates=["f", "m"],
        covariate_names=["sex"],
    )
    assert equal(data, expected)
    assert data.form.dtype == torch.uint8


def test_the_table_of_images_can_be_elsewhere(images, tmp_path_factory):
    folder, _ = images
    data = read_sequences(folder)
    frame = pd.read_csv(folder / "visits.csv")
    assert equal(read_sequences(folder, table=frame), data)
    other = tmp_path_factory.mktemp("tables") / "t.csv"
    frame.rename(columns={"file": "scan", "individual": "id"}).to_csv(other, index=False)
    assert equal(read_sequences(folder, table=other, file="scan", individual="id"), data)
    (folder / "visits.csv").rename(folder / "mine.csv")
    assert equal(read_sequences(folder), data)
    (folder / "second.csv").write_text("a\n")
    with pytest.raises(DataError, match=r"has 2 .csv files: expected visits.csv"):
        read_sequences(folder)


def test_images_of_other_sizes_are_refused_or_resized(images):
    folder, _ = images
    Image.new("L", (9, 9)).save(folder / "b.png")
    with pytest.raises(DataError, match=r"b.png is 9x9 pixels"):
        read_sequences(folder)
    assert read_sequences(folder, resize=(4, 4)).input_shape == (4, 4)
    assert read_sequences(folder, resize=(4, 4), color="rgb").input_shape == (3, 4, 4)


def test_files_that_the_folder_lacks_are_named(images):
    folder, _ = images
    (folder / "a" / "1.png").unlink()
    (folder / "b.png").unlink()
    with pytest.raises(DataError, match="lacks 2 of 3 .*: 'a/1.png', 'b.png'"):
        read_sequences(folder)
    with pytest.raises(DataError, match="file='scan' is not a column"):
        read_sequences(folder, file="scan")
    with pytest.raises(ConfigurationError, match="scores"):
        read_sequences(folder, scores=["age"])


def test_a_table_without_files_is_refused(images):
    folder, _ = images
    frame = pd.read_csv(folder / "visits.csv").assign(file=None)
    with pytest.raises(DataError, match="the DataFrame has no file in column 'file'"):
        read_sequences(folder, table=frame)


def test_files_outside_the_folder_are_named_too(images):
    folder, _ = images
    frame = pd.read_csv(folder / "visits.csv").assign(file="/nowhere/a.png")
    with pytest.raises(DataError, match="lacks 4 of 4 .*: '/nowhere/a.png'"):
        read_sequences(folder, table=frame)


def test_volumes_are_read_from_arrays(tmp_path):
    x = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    for visit, volume in enumerate(x):
        np.save(tmp_path / f"{visit}.npy", volume)
    frame = pd.DataFrame({"individual": list("aab"), "time": [1, 0, 0]})
    frame["file"] = ["0.npy", "1.npy", "2.npy"]
    data = read_sequences(tmp_path, table=frame)
    assert data.input_shape == (4, 5, 6)
    assert np.array_equal(data.x[0], x[[1, 0]])
    assert np.array_equal(data.x[1, 0], x[2])
    with pytest.raises(ConfigurationError, match="resize and color"):
        read_sequences(tmp_path, table=frame, resize=(3, 3))
    np.save(tmp_path / "2.npy", x[2, 1:])
    with pytest.raises(DataError, match=r"'2.npy' in .* float32 of shape \(4, 5, 6\), as '0.npy'"):
        read_sequences(tmp_path, table=frame)
    Image.new("L", (4, 4)).save(tmp_path / "3.png")
    frame.loc[2, "file"] = "3.png"
    with pytest.raises(DataError, match="npy files and others: '3.png'"):
        read_sequences(tmp_path, table=frame)


# --- arrays -----------------------------------------------------------------------------------


def test_arrays_are_read(tmp_path):
    path = tmp_path / "d.npz"
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5, 3), dtype=np.uint8)
    np.savez(
        path, x=x, time=[0, 1, 2], speed=np.arange(4.0), size=np.ones((4, 2)), who=list("abcd")
    )
    data = read_sequences(path, channels_last=True, covariates=["speed", "size"], individual="who")
    assert (data.input_shape, data.ids) == ((3, 5, 5), ("a", "b", "c", "d"))
    assert data.covariate_names == ("speed", "size0", "size1")
    assert torch.equal(data.y[:, 0], torch.arange(4.0))
    classes = read_sequences(path, channels_last=True, covariates=["who"])
    assert classes.class_names == ("a", "b", "c", "d")
    assert read_sequences(path, channels_last=True, covariates=[]).y is None
    with pytest.raises(DataError, match=r"lacks 'sex': it has the arrays \['size'"):
        read_sequences(path, covariates=["sex"])
    with pytest.raises(DataError, match="lacks 'y', 'age'"):
        read_sequences(path, x_key="y", time="age")
    with pytest.raises(DataError, match="has 'who' of dtype"):
        read_sequences(path, covariates=["speed", "who"])
    with pytest.raises(ConfigurationError, match="resize"):
        read_sequences(path, resize=(3, 3))


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_sequences(path)


# --- writing ----------------------------------------------------------------------------------


def study(numbers, shape, *, channels_last=False, mask=True, covariates=None, **options):
    rng = np.random.default_rng(5)
    x = rng.random((5, 4, *shape))
    x = (x * 255).astype(numbers) if numbers == np.uint8 else (x > 0.5 if numbers is bool else x)
    times = rng.random((5, 4)).cumsum(1)
    times[1, 2:] = NAN
    observed = ~np.isnan(times)
    observed[2, 1] = False
    seen = rng.random(x.shape) < 0.8
    seen[:, 0] = True
    return Sequences(
        x.astype(numbers),
        times=times,
        observed=observed,
        mask=seen if mask else None,
        ids=["a/b", "Ann", "ann", "ü", "5"],
        covariates=covariates,
        channels_last=channels_last,
        **options,
    )


COVARIATES = [
    {},
    {"covariates": list("ffmfm"), "covariate_names": ["sex"]},
    {"covariates": np.arange(10.0).reshape(5, 2) / 3, "covariate_names": ["age", "sex=m"]},
]


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32, np.float64])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("covariates", COVARIATES)
def test_arrays_come_back(tmp_path, dtype, channels_last, covariates):
    data = study(dtype, (3, 4, 2), channels_last=channels_last, **covariates)
    write_sequences(tmp_path / "d.npz", data)
    assert equal(read_sequences(tmp_path / "d.npz", channels_last=channels_last), data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariates", COVARIATES)
def test_scores_come_back_exactly(tmp_path, dtype, covariates):
    kind = torch.from_numpy(np.zeros(0, dtype)).dtype
    data = study(dtype, (2,), columns=["memory, long", "speed"], dtype=kind, **covariates)
    write_sequences(tmp_path / "d.csv", data)
    again = read_sequences(tmp_path / "d.csv", dtype=kind, covariates=data.covariate_names)
    # The ends of shorter individuals have no rows; visits that were not observed have.
    assert equal(again, data, form=False)
    assert again.form.columns == data.form.columns


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5)])
@pytest.mark.parametrize("covariates", COVARIATES)
def test_images_come_back(tmp_path, shape, covariates):
    data = study(np.uint8, shape, mask=False, **covariates)
    write_sequences(tmp_path / "d", data)
    assert equal(read_sequences(tmp_path / "d", covariates=data.covariate_names), data)


def test_completed_sequences_are_written(tmp_path):
    data = study(np.uint8, (6, 5, 3), mask=False, channels_last=True)
    whole = np.full((5, 4, 6, 5, 3), 7, np.uint8)
    full = data.filled(whole)
    write_sequences(tmp_path / "d", full)
    assert equal(read_sequences(tmp_path / "d"), full, form=False)


def test_names_are_given_to_what_has_none(tmp_path):
    data = Sequences(np.zeros((2, 2, 2)), times=[0, 1], covariates=np.ones((2, 1)))
    write_sequences(tmp_path / "d.csv", data)
    header = (tmp_path / "d.csv").read_text().splitlines()[0]
    assert header == '"individual","time","covariate0","x0","x1"'


def test_what_cannot_be_written_is_refused_before_work(tmp_path):
    scores, images = study(np.float64, (2,)), study(np.uint8, (4, 4))
    with pytest.raises(ConfigurationError, match=r"expected a .npz or .csv file, or a folder"):
        write_sequences(tmp_path / "d.txt", scores)
    with pytest.raises(DataError, match="expected vectors of scores"):
        write_sequences(tmp_path / "d.csv", images)
    with pytest.raises(DataError, match="mask is given"):
        write_sequences(tmp_path / "d", images)
    with pytest.raises(DataError, match=r"expected \(N, height, width\)"):
        write_sequences(tmp_path / "d", scores)
    named = study(np.float64, (2,), columns=["time", "a"])
    with pytest.raises(ConfigurationError, match="'time' would be in d.csv more than once"):
        write_sequences(tmp_path / "d.csv", named)
    assert not list(tmp_path.iterdir())
    write_sequences(tmp_path / "d.npz", scores)
    with pytest.raises(ConfigurationError, match="exists: overwrite=True"):
        write_sequences(tmp_path / "d.npz", scores)
    write_sequences(tmp_path / "d.npz", scores, overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_sequences(tmp_path / "full", study(np.uint8, (4, 4), mask=False))


def test_an_individual_in_two_files_is_refused(csv):
    one = read_sequences(csv("individual,time,a\nx,0,1\ny,0,1\n", "one.csv"))
    two = read_sequences(csv("individual,time,a\ny,3,1\nz,0,1\n", "two.csv"))
    with pytest.raises(DataError, match="both in train and in test: 'y'"):
        check_disjoint(train=one, test=two)


# --- real data ------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_clinical_tables_are_read():
    pbc = read_sequences(
        SHARED / "pbc2.csv",
        individual="id",
        time="year",
        scores=["serBilir", "albumin", "SGOT", "platelets", "prothrombin"],
        covariates=["drug", "sex", "age"],
    )
    assert (len(pbc), int(pbc.num_visits.sum())) == (312, 1945)
    assert pbc.covariate_names[-1] == "age"
    aids = read_sequences(
        SHARED / "aids.csv",
        individual="patient",
        time="obstime",
        scores=["CD4"],
        covariates=["drug"],
    )
    assert (len(aids), int(aids.num_visits.sum()), aids.class_names) == (467, 1405, ("ddC", "ddI"))
    oasis = read_sequences(
        SHARED / "oasis_longitudinal.csv",
        individual="Subject ID",
        time="MR Delay",
        scores=["MMSE", "nWBV"],
        covariates=["M/F"],
    )
    assert (len(oasis), int(oasis.num_visits.sum())) == (150, 373)
    with pytest.raises(DataError, match="two visits at one time"):
        read_sequences(SHARED / "aids.csv", individual="patient", time="Time", scores=["CD4"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_starmen_are_read():
    data = read_sequences(SHARED / "starmen.npz", covariates=["acceleration_alpha", "onset_tau"])
    assert (data.x.shape, data.form.dtype) == ((1000, 10, 64, 64), torch.uint8)
    assert data.covariate_names == ("acceleration_alpha", "onset_tau")
