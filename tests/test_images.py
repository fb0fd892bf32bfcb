"""Image files to network input."""

import numpy as np
import pytest
from PIL import Image

from tercel.sw.image_format import NORMALIZATIONS, ImageFormat
from tercel.sw.images import ImageError, image_batches, image_files, normalize, read_images, read_labels, read_samples

MEAN, STD = NORMALIZATIONS["imagenet"]
RGB = ImageFormat(size=32, mean=MEAN, std=STD)
GREY = ImageFormat(size=32, mean=(0.0,), std=(1.0,))


def picture(path, size=(32, 32), mode="RGB", seed=0):
    height, width = size[1], size[0]
    samples = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(samples).convert(mode).save(path)
    return samples


def test_normalization_by_the_formula(tmp_path):
    samples = picture(tmp_path / "a.png")
    result = read_images([tmp_path / "a.png"], image_format=RGB)
    assert result.shape == (1, 3, 32, 32) and result.dtype == np.float32 and result.flags.c_contiguous
    for channel in range(3):
        expected = (samples[..., channel].astype(np.float64) / 255 - MEAN[channel]) / STD[channel]
        np.testing.assert_allclose(result[0, channel], expected, rtol=1e-6, atol=1e-6)
    unit = normalize(samples, image_format=ImageFormat(size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    np.testing.assert_allclose(unit, np.moveaxis(samples / 127.5 - 1, -1, 0), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_modes_become_the_networks_channels(tmp_path, mode):
    picture(tmp_path / "a.png", mode=mode)
    assert read_samples(tmp_path / "a.png", image_format=RGB).shape == (32, 32, 3)
    assert read_samples(tmp_path / "a.png", image_format=GREY).shape == (32, 32, 1)


def test_resize_and_crop_keep_the_middle(tmp_path):
    image = Image.new("RGB", (300, 100), (255, 0, 0))
    image.paste((0, 255, 0), (100, 0, 200, 100))
    image.save(tmp_path / "a.png")
    samples = read_samples(tmp_path / "a.png", image_format=ImageFormat(size=224, mean=MEAN, std=STD), resize=True)
    assert samples.shape == (224, 224, 3)
    assert (samples[:, 5:-5] == (0, 255, 0)).all()  # 256/100 of 100 green columns are wider than the crop
    tall = Image.new("L", (10, 1000), 7)
    tall.save(tmp_path / "b.png")
    assert (read_samples(tmp_path / "b.png", image_format=GREY, resize=True) == 7).all()


def test_resizing_leaves_images_of_the_right_size_alone(tmp_path):
    samples = picture(tmp_path / "a.png")
    assert np.array_equal(read_samples(tmp_path / "a.png", image_format=RGB, resize=True), samples)


def test_preparation_is_short_side_256_then_centre_224(tmp_path):
    samples = picture(tmp_path / "a.png", size=(400, 300))
    image = Image.fromarray(samples).resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 58 + 224, 16 + 224))
    result = read_samples(tmp_path / "a.png", image_format=ImageFormat(size=224, mean=MEAN, std=STD), resize=True)
    assert np.array_equal(result, np.asarray(image))


def test_wrong_images_are_named(tmp_path):
    picture(tmp_path / "a.png", size=(40, 30))
    with pytest.raises(ImageError, match=r"a\.png: image is 40x30, the network takes 32x32 \(resize it, or ask for resizing\)$"):
        read_samples(tmp_path / "a.png", image_format=RGB)
    (tmp_path / "b.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"b\.jpg: cannot be read as an image: .* \(give one of \.jpg, "):
        read_samples(tmp_path / "b.jpg", image_format=RGB)
    with pytest.raises(ImageError, match=r"c\.png: no such image"):
        read_samples(tmp_path / "c.png", image_format=RGB)
    with pytest.raises(ImageError, match=r"cannot be read as an image"):
        read_samples(tmp_path, image_format=RGB)
    Image.fromarray(np.zeros((32, 32), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ImageError, match=r"deep\.png: image has mode I;16, not one of .* \(save it with 8 bits a channel\)"):
        read_samples(tmp_path / "deep.png", image_format=RGB)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"cut\.png: cannot be read as an image: "):
        read_samples(tmp_path / "cut.png", image_format=RGB)


def test_folders(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "sub/c.jpg", "a.JPG"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [file.name for file in image_files(tmp_path)] == ["a.JPG", "b.png", "c.jpg"]
    assert image_files(tmp_path / "b.png") == [tmp_path / "b.png"]
    with pytest.raises(ImageError, match=r"none: the folder does not exist \(give one with \.jpg"):
        image_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"empty: the folder holds no image"):
        image_files(tmp_path / "empty")


def test_batches_cover_all_files_in_order(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        picture(path, seed=index)
    batches = list(image_batches(paths, image_format=RGB, batch=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert np.array_equal(np.concatenate([batch.numpy() for batch in batches]), read_images(paths, image_format=RGB))
    assert read_images([], image_format=RGB).shape == (0, 3, 32, 32)


def test_labels(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label,wnid,class_name,source,role\na/x.jpg,3,n1,cat,web,calib\nb.jpg,0,n0,dog,web,eval\n")
    images = read_labels(tmp_path)
    assert [(image.path, image.label, image.role) for image in images] == [
        (tmp_path / "a/x.jpg", 3, "calib"),
        (tmp_path / "b.jpg", 0, "eval"),
    ]
    assert [image.label for image in read_labels(tmp_path, role="eval")] == [0]
    with pytest.raises(ImageError, match=r"labels\.csv: no image with role 'test' \(the roles there are calib, eval\)"):
        read_labels(tmp_path, role="test")
    table.write_text("file,label\na.jpg,1\n")
    with pytest.raises(ImageError, match=r"labels\.csv: no column role "):
        read_labels(tmp_path)
    table.write_text("file,label,role\na.jpg,1,eval\nb.jpg,-1,eval\n")
    with pytest.raises(ImageError, match=r"labels\.csv:3: label must be a whole number from 0 up, not '-1'"):
        read_labels(tmp_path)
    with pytest.raises(ImageError, match=r"labels\.csv: no such file"):
        read_labels(tmp_path / "sub")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0, "mean": (0.0,), "std": (1.0,)}, "size must be at least 1, not 0"),
        ({"size": 8, "mean": (0.0, 0.0), "std": (1.0, 1.0)}, "mean and std must have 1 or 3 values each"),
        ({"size": 8, "mean": (0.0,), "std": (0.0,)}, "std must be above 0 and all values finite"),
        ({"size": 8, "mean": (float("nan"),), "std": (1.0,)}, "std must be above 0 and all values finite"),
    ],
)
def test_formats_check_their_values(values, message):
    with pytest.raises(ValueError, match=message):
        ImageFormat(**values)
