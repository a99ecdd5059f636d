import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from classification.data.images import decode_images, fit, read_rgb

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(tmp_path, image, name="image.png", **options):
    path = str(tmp_path / name)
    image.save(path, **options)
    return path


def pixels(path):
    image = read_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_read_as_it_is(tmp_path):
    values = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    assert (pixels(save(tmp_path, Image.fromarray(values))) == values).all()


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.uint16, "image.png"), (np.uint16, "image.tif"), (np.int32, "image.tif")]
)
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, dtype, name):
    values = np.array([[0, 256, 257], [32896, 65278, 65535]], dtype=dtype)
    expected = [[0, 1, 1], [128, 254, 255]]  # value / 257, rounded
    read = pixels(save(tmp_path, Image.fromarray(values), name))
    assert read.tolist() == np.repeat(np.array(expected)[..., None], 3, axis=2).tolist()


def test_a_16_bit_portable_grey_map_is_scaled(tmp_path):
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + np.array([257, 65535], dtype=">u2").tobytes())
    assert pixels(str(path)).tolist() == [[[1] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "CMYK", "P", "YCbCr"])
def test_every_mode_keeps_black_and_white(tmp_path, mode):
    image = Image.new("RGB", (3, 2), (255, 255, 255))
    image.putpixel((2, 1), (0, 0, 0))
    name = "image.tif" if mode in ("CMYK", "YCbCr") else "image.png"
    read = pixels(save(tmp_path, image.convert(mode), name))
    expected = np.full((2, 3, 3), 255)
    expected[1, 2] = 0
    assert (read == expected).all()


def test_cmyk_in_a_jpeg_file_has_its_colours(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    read = pixels(save(tmp_path, image, "image.jpg", quality=100))
    assert np.abs(read.astype(int) - RED).max() <= 3


def test_transparent_pixels_show_white_and_half_transparent_ones_half(tmp_path):
    image = Image.new("RGBA", (3, 1), (*BLUE, 255))
    image.putpixel((0, 0), (*RED, 0))
    image.putpixel((1, 0), (0, 0, 0, 51))  # a fifth of black on white
    assert pixels(save(tmp_path, image)).tolist() == [[[255] * 3, [204] * 3, list(BLUE)]]


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        image.putpixel((x, 0), x)
    read = pixels(save(tmp_path, image, transparency=bytes([255, 0, 255])))
    assert read.tolist() == [[list(RED), [255] * 3, list(BLUE)]]


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_note_is_followed_once(tmp_path, name, orientation):
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    stored = {  # how a camera stores the upright picture
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), name, exif=exif)
    assert (pixels(path) == upright).all()


def test_a_broken_exif_note_is_ignored(tmp_path):
    path = save(tmp_path, Image.new("RGB", (4, 2), RED), exif=b"Exif\0\0II*\0\xff\xff")
    assert pixels(path).shape == (2, 4, 3)


def test_an_unreadable_file_is_named(tmp_path):
    path = tmp_path / "no_image.png"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must be readable; got '.*no_image.png': Unidentified"):
        read_rgb(str(path))
    with pytest.raises(ValueError, match=r"absent.png': FileNotFoundError"):
        read_rgb(str(tmp_path / "absent.png"))


def test_a_truncated_file_is_named(tmp_path):
    path = save(tmp_path, Image.effect_noise((64, 64), 80), "cut.jpg")
    with open(path, "r+b") as file:
        file.truncate(1500)
    with pytest.raises(ValueError, match=r"cut.jpg': OSError: .*truncated"):
        read_rgb(path)


def test_a_damaged_file_is_named(tmp_path):
    path = save(tmp_path, Image.effect_noise((64, 64), 80).convert("RGB"))
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(bytes(1000))  # inside the compressed pixels
    with pytest.raises(ValueError, match=r"must be readable; got '.*image.png'"):
        read_rgb(path)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((2, 3), np.float32), "pixels must be integers; got mode F"),
        (np.array([[0, 65536]], np.int32), "grey values must be 0 to 65535; got 0 to 65536"),
        (np.array([[-1, 9]], np.int32), "grey values must be 0 to 65535; got -1 to 9"),
    ],
)
def test_pixel_values_without_a_known_range_are_refused(tmp_path, values, reason):
    path = save(tmp_path, Image.fromarray(values), "image.tif")
    with pytest.raises(ValueError, match=f"image.tif': ValueError: {reason}"):
        read_rgb(path)


@pytest.mark.parametrize("size", [(10, 6), (6, 10)])
def test_fit_keeps_the_centre_square(size):
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2 - 2, size[1] // 2 - 2, size[0] // 2 + 2, size[1] // 2 + 2))
    fitted = fit(image, 4, shorter_edge=6)  # no resizing: the shorter edge is 6 already
    assert np.asarray(fitted).tolist() == np.full((4, 4, 3), BLUE).tolist()
    assert fit(image, 3).size == (3, 3)


def test_fit_returns_a_picture_of_the_size_itself():
    image = torch.zeros(3, 5, 5, dtype=torch.uint8)
    assert fit(image, 5, shorter_edge=6) is image
    assert fit(image[None], 6).shape == (1, 3, 6, 6)
    assert fit(image[:, :4], 5).shape == (3, 5, 5)


def test_decoded_images_come_in_order(tmp_path):
    values = np.random.default_rng(0).integers(256, size=(150, 4, 4, 3), dtype=np.uint8)
    paths = [save(tmp_path, Image.fromarray(v), f"{i}.png") for i, v in enumerate(values)]
    decoded = decode_images(paths, 4)
    assert decoded.dtype == torch.uint8
    assert (decoded.permute(0, 2, 3, 1).numpy() == values).all()
    (larger,) = decode_images(paths[:1], 6)
    assert larger.equal(transforms.pil_to_tensor(fit(read_rgb(paths[0]), 6)))


def test_decoding_names_the_file_that_cannot_be_read(tmp_path):
    paths = [save(tmp_path, Image.new("RGB", (3, 2)), f"{i}.png") for i in range(3)]
    (tmp_path / "1.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must be readable; got '.*1.png'"):
        decode_images(paths, 4)
