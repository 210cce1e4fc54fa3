import csv
import logging
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from chartae.data import ArrayDataset, disks_and_rings, read_data, read_images, write_images
from chartae.errors import ConfigurationError, DataError


def write_image(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 5), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    """Four grey images of the classes cat, cat, dog, dog."""
    for i, image in enumerate(pixels):
        write_image(tmp_path / ("cat", "dog")[i // 2] / f"{i}.png", image)
    return tmp_path


def test_grey_images_are_read_in_order(folder, pixels):
    data = read_data(folder)
    np.testing.assert_allclose(data.x.numpy(), pixels / 255, rtol=1e-6)
    assert (data.y.tolist(), data.class_names) == ([0, 0, 1, 1], ("cat", "dog"))


def test_colour_images_are_channels_first(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    write_image(tmp_path / "a" / "0.png", image)
    data = read_images(tmp_path, dtype=torch.float64)
    np.testing.assert_allclose(data.x[0].numpy(), image.transpose(2, 0, 1) / 255)


def test_binary_images_are_zero_and_one(tmp_path):
    image = np.eye(4, dtype=bool)
    write_image(tmp_path / "a" / "0.png", image)
    assert np.array_equal(read_images(tmp_path).x[0].numpy(), image)


def test_jpeg_images_are_read(tmp_path):
    write_image(tmp_path / "a" / "0.jpg", np.full((8, 8), 102, dtype=np.uint8))
    torch.testing.assert_close(read_images(tmp_path).x, torch.full((1, 8, 8), 0.4))


def test_a_fresh_process_knows_every_kind_of_image(tmp_path):
    """Pillow learns kinds of files one by one, and other tests have taught it some."""
    for suffix in ("png", "jpg", "tiff", "bmp"):
        write_image(tmp_path / "a" / f"0.{suffix}", np.full((4, 4), 100, dtype=np.uint8))
    code = f"from chartae.data import read_data; print(len(read_data({str(tmp_path)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "4\n", done.stderr


def test_hidden_files_are_left_out(folder):
    (folder / ".DS_Store").write_text("x")
    (folder / ".cache").mkdir()
    (folder / "cat" / ".thumbs").write_text("x")
    assert len(read_images(folder)) == 4


def test_mixed_sizes_are_refused(folder):
    write_image(folder / "dog" / "9.png", np.zeros((6, 7), dtype=np.uint8))
    with pytest.raises(
        DataError,
        match=r"dog/9.png is 7x6 pixels, but .*cat/0.png is 5x6 pixels.*; the option resize",
    ):
        read_images(folder)


def test_mixed_modes_are_refused(folder):
    write_image(folder / "dog" / "9.png", np.zeros((6, 5, 3), dtype=np.uint8))
    with pytest.raises(
        DataError, match=r"dog/9.png is RGB, but .*cat/0.png is grey.*; the option color converts"
    ):
        read_images(folder)


@pytest.mark.parametrize("count", [1, 5])
def test_offenders_are_listed(folder, count):
    for number in range(count):
        write_image(folder / "dog" / f"x{number}.png", np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(DataError, match="x0.png is 9x9") as caught:
        read_images(folder)
    assert str(caught.value).count("is 9x9") == min(count, 3)
    assert ("2 more" in str(caught.value)) == (count == 5)


@pytest.mark.parametrize("color", [None, "grey", "rgb"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_eight_bits_is_read(tmp_path, mode, color):
    grey = np.array([[0, 255, 255], [0, 0, 255]], dtype=np.uint8)
    write_image(tmp_path / "a" / "0.tiff", grey, mode if mode != "PA" else "P")
    data = read_images(tmp_path, color=color)
    is_grey = color == "grey" or (color is None and mode in ("1", "L", "LA"))
    assert data.input_shape == ((2, 3) if is_grey else (3, 2, 3))
    expected = torch.from_numpy(grey / 255.0).float().expand(data.input_shape)
    torch.testing.assert_close(data.x[0], expected, atol=0.02, rtol=0)


def test_what_is_transparent_is_laid_on_white(tmp_path):
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = [0, 51, 255]
    write_image(tmp_path / "a" / "0.png", rgba)
    torch.testing.assert_close(read_images(tmp_path).x[0, 0], torch.tensor([[1.0, 0.8, 0.0]]))
    write_image(tmp_path / "a" / "0.png", rgba, "LA")
    torch.testing.assert_close(read_images(tmp_path).x[0], torch.tensor([[1.0, 0.8, 0.0]]))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_divided_by_65535(tmp_path, suffix):
    wide = np.arange(20, dtype=np.uint16).reshape(4, 5) + 40_000
    write_image(tmp_path / "a" / f"0.{suffix}", wide)
    data = read_images(tmp_path)
    np.testing.assert_allclose(data.x[0].numpy(), wide / 65535, rtol=1e-7)
    assert data.form.dtype == torch.float32


@pytest.mark.parametrize(
    ("highest", "options", "message"),
    [
        (65535, {"color": "rgb"}, "has one channel of more than 8 bits, which cannot become RGB"),
        (65536, {}, "its values from 0 to 65536 are not of 16 bits"),
    ],
)
def test_wide_images_that_cannot_be_converted_are_refused(tmp_path, highest, options, message):
    wide = np.array([[0, highest]], dtype=np.int32)
    write_image(tmp_path / "a" / "0.tiff", wide)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path, **options)


def test_floating_point_pixels_are_taken_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    write_image(tmp_path / "a" / "0.tiff", x)
    np.testing.assert_array_equal(read_images(tmp_path).x[0].numpy(), x)


def test_eight_and_sixteen_bits_together_are_on_one_scale(tmp_path):
    write_image(tmp_path / "a" / "0.png", np.full((2, 2), 255, dtype=np.uint8))
    write_image(tmp_path / "a" / "1.png", np.full((2, 2), 65535, dtype=np.uint16))
    assert torch.equal(read_images(tmp_path).x, torch.ones(2, 2, 2))


def test_images_are_turned_as_their_orientation_says(tmp_path):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = image.getexif()
    exif[0x112] = 6  # to be turned by a quarter, clockwise
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.png", exif=exif)
    turned = np.rot90(np.arange(6).reshape(2, 3), -1)
    np.testing.assert_allclose(read_images(tmp_path).x[0].numpy() * 255, turned, rtol=1e-5)


@pytest.mark.parametrize("suffix", ["tiff", "gif"])
def test_pages_are_never_lost(tmp_path, suffix):
    pages = [Image.fromarray(np.full((2, 2), v, dtype=np.uint8)) for v in (10, 20)]
    (tmp_path / "a").mkdir()
    pages[0].save(tmp_path / "a" / f"0.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=f"0.{suffix} has 2 pages or frames: expected a file for"):
        read_images(tmp_path)


def test_photographs_with_previews_are_one_image(tmp_path):
    pages = [Image.fromarray(np.full((8, 8, 3), v, dtype=np.uint8)) for v in (51, 255)]
    (tmp_path / "a").mkdir()
    pages[0].save(tmp_path / "a" / "0.jpg", "MPO", save_all=True, append_images=pages[1:])
    torch.testing.assert_close(read_images(tmp_path).x, torch.full((1, 3, 8, 8), 0.2))


def test_colours_of_16_bits_are_not_cut_to_8(tmp_path):
    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    (tmp_path / "a").mkdir()
    for bits in (8, 16):  # 16 pixels on a side, which is no number of bits
        row = b"\0" + bytes(16 * 3 * bits // 8)
        header = struct.pack(">IIBBBBB", 16, 16, bits, 2, 0, 0, 0)
        content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 16))
        png = b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")
        (tmp_path / "a" / f"{bits}.png").write_bytes(png)
    with pytest.raises(DataError, match="16.png cannot be read .*: its colours have 16 bits"):
        read_images(tmp_path)
    assert len(read_images(tmp_path, skip_unreadable=True)) == 1


def test_resizing_makes_sizes_alike_and_antialiases(folder):
    checks = (np.indices((12, 10)).sum(0) % 2 * 255).astype(np.uint8)
    write_image(folder / "dog" / "9.png", checks)
    data = read_images(folder, resize=(6, 5))
    assert data.input_shape == (6, 5)
    torch.testing.assert_close(data.x[-1], torch.full((6, 5), 0.5), atol=0.01, rtol=0)
    wide = np.full((8, 8), 30_000, dtype=np.uint16)
    write_image(folder / "dog" / "9.png", wide)
    torch.testing.assert_close(
        read_images(folder, resize=(6, 5)).x[-1], torch.full((6, 5), 30_000 / 65535)
    )


@pytest.mark.parametrize("resize", [(0, 5), (5,), 5, (5.0, 5)])
def test_sizes_out_of_range_are_refused(folder, resize):
    with pytest.raises(ConfigurationError, match="resize"):
        read_images(folder, resize=resize)


def test_an_unknown_color_is_refused(folder):
    with pytest.raises(ConfigurationError, match="color='gray' is not known.*did you mean 'grey'"):
        read_images(folder, color="gray")


def test_files_that_are_no_images_are_left_out_and_counted(folder, caplog):
    for name in ("README.txt", "cat/notes.md", "cat/scan.dcm"):
        (folder / name).write_text("x")
    (folder / "__MACOSX").mkdir()
    for silent in ("Thumbs.db", "cat/desktop.ini", ".DS_Store", "manifest.csv", "__MACOSX/0.png"):
        (folder / silent).write_text("x")
    with caplog.at_level(logging.WARNING):
        assert len(read_images(folder)) == 4
    assert len(caplog.records) == 1
    assert "left out 3 file(s) that are not images: " in caplog.text
    assert all(name in caplog.text for name in ("README.txt", "notes.md", "scan.dcm"))
    assert "Thumbs" not in caplog.text


def test_unreadable_files_are_left_out_if_asked(folder, caplog):
    (folder / "dog" / "9.png").write_bytes(b"text")
    with caplog.at_level(logging.WARNING):
        data = read_images(folder, skip_unreadable=True)
    assert (len(data), data.y.tolist()) == (4, [0, 0, 1, 1])
    assert re.search(r"left out 1 unreadable file\(s\): .*9.png cannot be read", caplog.text)
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="dog has no readable image"):
        read_images(folder, skip_unreadable=True)


def test_images_deeper_below_their_class_are_of_it(folder, pixels):
    write_image(folder / "dog" / "deeper" / "still" / "9.png", pixels[0])
    assert read_images(folder).y.tolist() == [0, 0, 1, 1, 1]


def test_links_to_folders_above_are_not_followed(folder):
    (folder / "dog" / "again").symlink_to(folder / "dog", target_is_directory=True)
    (folder / "dog" / "all").symlink_to(folder, target_is_directory=True)
    assert len(read_images(folder)) == 4


def test_a_folder_of_images_alone_has_no_labels(tmp_path, pixels):
    for number, image in enumerate(pixels):
        write_image(tmp_path / f"{number}.png", image)
    data = read_images(tmp_path)
    assert data.y is None
    np.testing.assert_allclose(data.x.numpy(), pixels / 255, rtol=1e-6)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89PNG\r\n\x1a\n cut short", b"II*\0\x08\0\0\0" + bytes(6)]
)
def test_unreadable_images_are_refused(folder, content):
    (folder / "dog" / "9.png").write_bytes(content)
    with pytest.raises(DataError, match=r"dog/9.png cannot be read as an image"):
        read_images(folder)


def test_truncated_images_are_refused(tmp_path):
    path = tmp_path / "a" / "0.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"0.png cannot be read as an image"):
        read_images(tmp_path)


def test_a_class_without_images_is_refused(folder):
    (folder / "owl").mkdir()
    with pytest.raises(DataError, match="owl has no images: expected at least one of its class"):
        read_images(folder)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no images: expected images in one subfolder per"):
        read_images(tmp_path)


def test_files_outside_the_classes_are_refused(folder, pixels):
    write_image(folder / "0.png", pixels[0])
    with pytest.raises(DataError, match=r"0.png has no class"):
        read_images(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="folder='.*absent': expected an existing folder"):
        read_images(tmp_path / "absent")


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5)])
def test_round_trip(tmp_path, shape):
    x = torch.randint(0, 256, (12, *shape), generator=torch.Generator().manual_seed(0)) / 255
    data = ArrayDataset(x, torch.arange(12) // 6, class_names=("cat", "dog"))
    write_images(tmp_path / "new" / "images", data)
    again = read_images(tmp_path / "new" / "images")
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.y, data.y)
    assert again.class_names == data.class_names


def test_values_are_rounded_to_the_nearest_level(tmp_path):
    x = torch.tensor([[[100.4, 100.6]]]) / 255
    write_images(tmp_path, ArrayDataset(x, torch.tensor([0])))
    assert (read_images(tmp_path).x * 255).round().tolist() == [[[100.0, 101.0]]]


def test_one_channel_is_grey(tmp_path):
    data = disks_and_rings(4)
    write_images(tmp_path, ArrayDataset(data.x[:, None], data.y))
    assert read_images(tmp_path).x.shape == (4, 28, 28)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": torch.zeros(2, 5)}, r"x has shape \(2, 5\): expected \(N, height, width\)"),
        ({"x": torch.zeros(2, 5, 5, 5)}, r"x has shape \(2, 5, 5, 5\): expected"),
        (
            {"x": torch.full((2, 5, 5), 1.5)},
            r"x ranges from 1.5 to 1.5: expected values in \[0, 1\]",
        ),
        ({"mask": torch.ones(2, 5, 5, dtype=torch.bool)}, "PNG has no mask"),
    ],
)
def test_what_cannot_be_written_is_refused_before_writing(tmp_path, fields, message):
    usual = {"x": torch.zeros(2, 5, 5), "y": torch.tensor([0, 1])}
    with pytest.raises(DataError, match=message):
        write_images(tmp_path / "out", ArrayDataset(**(usual | fields)))
    assert not (tmp_path / "out").exists()


def test_any_name_of_a_class_gets_a_folder_of_its_own_below(tmp_path):
    names = ("..", ".", "", "<1", ">1", "A", "a", "x/../../y")
    data = ArrayDataset(torch.zeros(8, 4, 4), torch.arange(8), class_names=names)
    written = write_images(tmp_path / "out", data)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out"]
    folders = [file.parent for file in written[:-1]]
    assert len({str(folder).lower() for folder in folders}) == len(names)
    assert {folder.parent for folder in folders} == {tmp_path / "out"}
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == list(names)
    assert [tmp_path / "out" / row["file"] for row in rows] == written[:-1]
    again = read_images(tmp_path / "out")
    assert again.class_names == tuple(sorted(names))
    assert len(again) == len(names)


def test_a_table_of_someone_else_names_no_class(folder):
    (folder / "manifest.csv").write_text("id,age\ncat/0.png,3\n")
    assert read_images(folder).class_names == ("cat", "dog")
    (folder / "manifest.csv").write_text("file,label\ncat/0.png,Felis\n")
    assert read_images(folder).class_names == ("Felis", "dog")
    (folder / "manifest.csv").write_text("file,label\ncat/0.png,dog\n")
    with pytest.raises(DataError, match="manifest.csv gives one label to several folders"):
        read_images(folder)


def test_values_outside_the_range_are_clipped_only_if_asked(tmp_path, caplog):
    data = ArrayDataset(torch.tensor([[[-0.1, 0.4], [1.0, 1.2]]]))
    with caplog.at_level(logging.WARNING):
        write_images(tmp_path, data, clip=True)
    assert "clipped 2 of 4 values that are outside [0, 1]" in caplog.text
    assert read_images(tmp_path).x.flatten().tolist() == pytest.approx([0.0, 0.4, 1.0, 1.0])


def test_vectors_are_no_labels_of_images(tmp_path):
    data = ArrayDataset(torch.zeros(2, 4, 4), torch.zeros(2, 3))
    with pytest.raises(DataError, match="y holds vectors: expected labels"):
        write_images(tmp_path / "out", data)
    assert not (tmp_path / "out").exists()


def test_images_without_labels_are_written_side_by_side(tmp_path):
    write_images(tmp_path, ArrayDataset(torch.eye(4).expand(3, 4, 4)))
    again = read_images(tmp_path)
    assert again.y is None
    assert torch.equal(again.x, torch.eye(4).expand(3, 4, 4))


def test_an_occupied_folder_is_refused(folder):
    with pytest.raises(ConfigurationError, match="is not empty: expected a new folder"):
        write_images(folder, disks_and_rings(2))
    with pytest.raises(ConfigurationError, match="folder=.* cannot be written to"):
        write_images(folder / "cat" / "0.png", disks_and_rings(2))


def test_sixteen_bits_are_written_as_they_were_read(tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, (3, 4, 5), dtype=np.uint16)
    for row, image in enumerate(wide):
        write_image(tmp_path / "in" / f"{row}.tiff", image)
    data = read_images(tmp_path / "in")
    assert data.form.stored == "uint16"
    write_images(tmp_path / "out", data)
    with Image.open(tmp_path / "out" / "1.png") as image:
        np.testing.assert_array_equal(np.asarray(image), wide[1])


def test_transparency_is_a_channel_if_asked(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    write_image(tmp_path / "in" / "0.png", rgba)
    data = read_images(tmp_path / "in", color="rgba")
    assert data.input_shape == (4, 6, 5)
    write_images(tmp_path / "out", data)
    with Image.open(tmp_path / "out" / "0.png") as image:
        np.testing.assert_array_equal(np.asarray(image), rgba)


def test_the_centre_is_cut_before_images_are_resized(tmp_path):
    image = np.arange(7 * 6, dtype=np.uint8).reshape(7, 6)
    write_image(tmp_path / "0.png", image)
    cut = read_images(tmp_path, crop=(3, 4)).x[0].numpy() * 255
    np.testing.assert_allclose(cut, image[2:5, 1:5], rtol=1e-6)
    assert read_images(tmp_path, crop=(3, 4), resize=(6, 8)).input_shape == (6, 8)
    with pytest.raises(DataError, match="it is 6x7 pixels, smaller than crop, 4x9 pixels"):
        read_images(tmp_path, crop=(9, 4))


def test_labels_may_be_in_a_table_beside_the_images(tmp_path, pixels, caplog):
    for row, image in enumerate(pixels):
        write_image(tmp_path / f"{row}.png", image)
    (tmp_path / "labels.csv").write_text('"file","label"\n2.png,cat\n0.png,dog\n1.png,cat\n')
    with caplog.at_level(logging.WARNING):
        data = read_images(tmp_path)
    assert (data.class_names, data.y.tolist()) == (("cat", "dog"), [0, 1, 0])
    assert data.names == ("2.png", "0.png", "1.png")
    np.testing.assert_allclose(data.x.numpy(), pixels[[2, 0, 1]] / 255, rtol=1e-6)
    assert re.search(r"left out 1 file\(s\) that .*labels.csv lacks: .*3.png", caplog.text)
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match="class cat has no readable image"):
        read_images(tmp_path, skip_unreadable=True)


def test_a_table_gives_the_labels_whatever_the_subfolders(folder):
    lines = [f"{name},{row % 2}" for row, name in enumerate(read_images(folder).names)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *lines]))
    assert read_images(folder).class_names == ("0", "1")
    assert read_images(folder).y.tolist() == [0, 1, 0, 1]
