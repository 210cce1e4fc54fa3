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


def test_hidden_files_are_left_out(folder):
    (folder / ".DS_Store").write_text("x")
    (folder / ".cache").mkdir()
    (folder / "cat" / ".thumbs").write_text("x")
    assert len(read_images(folder)) == 4


def test_mixed_sizes_are_refused(folder):
    write_image(folder / "dog" / "9.png", np.zeros((6, 7), dtype=np.uint8))
    with pytest.raises(DataError, match=r"dog/9.png is 7x6 pixels and .*cat/0.png is 5x6 pixels"):
        read_images(folder)


def test_mixed_modes_are_refused(folder):
    write_image(folder / "dog" / "9.png", np.zeros((6, 5, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"dog/9.png has mode RGB and .*cat/0.png L: expected one"):
        read_images(folder)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "I;16"])
def test_other_modes_are_refused(tmp_path, pixels, mode):
    write_image(tmp_path / "a" / "0.png", pixels[0], mode)
    with pytest.raises(DataError, match=f"0.png has mode {mode}: expected 1 .binary., L .* or RGB"):
        read_images(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n cut short"])
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
    with pytest.raises(DataError, match="owl is empty: expected at least one image of its class"):
        read_images(folder)


def test_a_folder_without_classes_is_refused(tmp_path, pixels):
    with pytest.raises(DataError, match="has no subfolders: expected one subfolder"):
        read_images(tmp_path)
    write_image(tmp_path / "0.png", pixels[0])
    with pytest.raises(DataError, match="has no subfolders: expected one subfolder"):
        read_images(tmp_path)


def test_files_outside_the_classes_are_refused(folder, pixels):
    write_image(folder / "0.png", pixels[0])
    with pytest.raises(DataError, match=r"0.png is in no class"):
        read_images(folder)


def test_folders_inside_the_classes_are_refused(folder):
    (folder / "cat" / "deeper").mkdir()
    with pytest.raises(DataError, match=r"cat/deeper cannot be read as an image"):
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
        ({"y": None}, "y is missing: expected labels"),
        ({"x": torch.zeros(2, 5)}, r"x has shape \(2, 5\): expected \(N, height, width\)"),
        ({"x": torch.zeros(2, 4, 5, 5)}, r"x has shape \(2, 4, 5, 5\): expected"),
        (
            {"x": torch.full((2, 5, 5), 1.5)},
            r"x ranges from 1.5 to 1.5: expected values in \[0, 1\]",
        ),
        ({"mask": torch.ones(2, 5, 5, dtype=torch.bool)}, "PNG cannot hold a mask"),
        ({"class_names": ("a", "b/c")}, "class name 'b/c' cannot be the name of a folder"),
        ({"class_names": ("a", "..")}, r"class name '\.\.' cannot be the name of a folder"),
        ({"class_names": ("a", "")}, "class name '' cannot be the name of a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_writing(tmp_path, fields, message):
    usual = {"x": torch.zeros(2, 5, 5), "y": torch.tensor([0, 1])}
    with pytest.raises(DataError, match=message):
        write_images(tmp_path / "out", ArrayDataset(**(usual | fields)))
    assert not (tmp_path / "out").exists()


def test_an_occupied_folder_is_refused(folder):
    with pytest.raises(ConfigurationError, match="is not empty: expected a new folder"):
        write_images(folder, disks_and_rings(2))
    with pytest.raises(ConfigurationError, match="folder=.* cannot be written to"):
        write_images(folder / "cat" / "0.png", disks_and_rings(2))
