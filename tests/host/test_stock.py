"""The stock nodes: what they load and save, and what they refuse."""

import json
import re
import time
from contextvars import copy_context
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_wuerstchen.host.folders import Folders, HostSurroundings
from comfyui_wuerstchen.host.stock.images import LoadImage, PreviewImage, SaveImage
from comfyui_wuerstchen.host.stock.latents import LoadLatent, SaveLatent
from comfyui_wuerstchen.host.stock.reading import EXAMPLES, InputFileError
from comfyui_wuerstchen.host.stock.saving import SaveError, fill_tokens
from comfyui_wuerstchen.nodes.runtime import use
from comfyui_wuerstchen.wuerstchen_core.folder_lock import clean_output

PIXELS = torch.arange(4 * 6 * 3).reshape(1, 4, 6, 3) * 3 / 255


def save(prefix="picture", images=PIXELS, **about):
    return SaveImage().save_images(images, prefix, **about)["ui"]["images"]


def test_saving_and_loading_gives_the_same_pixels(inside):
    (saved,) = save()
    assert saved == {"filename": "picture_00001_.png", "subfolder": "", "type": "output"}
    image, mask = LoadImage().load_image("picture_00001_.png [output]")
    assert torch.equal(image, PIXELS)
    assert mask.shape == (1, 64, 64) and not mask.any()


def test_numbers_go_on_and_batches_are_numbered(inside):
    names = [one["filename"] for one in save(images=PIXELS.expand(3, -1, -1, -1)) + save()]
    assert names == [f"picture_{i:05}_.png" for i in range(1, 5)]
    (inside.output / "picture_00041_.jpg").touch()
    assert save()[0]["filename"] == "picture_00042_.png"
    assert save("b%batch_num%", PIXELS.expand(2, -1, -1, -1))[1]["filename"] == "b1_00001_.png"


def test_a_picture_carries_prompt_and_workflow(inside):
    save(prompt={"1": {"class_type": "X"}}, extra_pnginfo={"workflow": {"nodes": []}})
    with Image.open(inside.output / "picture_00001_.png") as picture:
        assert json.loads(picture.text["prompt"]) == {"1": {"class_type": "X"}}
        assert json.loads(picture.text["workflow"]) == {"nodes": []}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_rgb_and_rgba_with_odd_values(inside, channels):
    image = (
        torch.tensor([-1.0, 0.5, 2.0, float("nan")])
        .reshape(1, 2, 2, 1)
        .expand(-1, -1, -1, channels)
    )
    save(images=image)
    with Image.open(inside.output / "picture_00001_.png") as picture:
        assert len(picture.getbands()) == channels
        assert np.asarray(picture).reshape(4, channels)[:, 0].tolist() == [0, 127, 255, 0]


def test_tokens(inside):
    prompt = {"3": {"class_type": "KSampler", "inputs": {"seed": 7}, "_meta": {"title": "My node"}}}
    filled = fill_tokens("%width%x%height% %My node.seed% %date:yyyy-MM-dd% %other%", 6, 4, prompt)
    assert re.fullmatch(r"6x4 7 \d{4}-\d\d-\d\d %other%", filled)
    assert fill_tokens("%date:yy.M.d%", 1, 1, None) == time.strftime("%y.") + ".".join(
        str(part) for part in time.localtime()[1:3]
    )
    prompt["3"]["inputs"]["text"] = "../../a"
    assert fill_tokens("%KSampler.text%%My node.text%", 1, 1, prompt) == "%KSampler.text%.._.._a"


def test_subfolders_are_made(inside):
    assert save("day/one/picture")[0]["subfolder"] == "day/one"
    assert (inside.output / "day/one/picture_00001_.png").is_file()


@pytest.mark.parametrize(
    "prefix",
    ["../x", "a/../../x", "/etc/x", "\\\\server\\x", "C:\\x", "..", ".", "", "a/.hidden", "x\0y"],
)
def test_saving_stays_inside(inside, prefix):
    with pytest.raises(SaveError) as error:
        save(prefix)
    assert "\n" not in str(error.value)
    assert not any(inside.output.rglob("*.png"))


def test_saving_does_not_follow_a_link_out(inside, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (inside.output / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SaveError, match="leads out"):
        save("out/x")


def test_a_failed_save_leaves_nothing(inside, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SaveError, match="No space left on device") as error:
        save()
    assert str(inside.output) not in str(error.value)
    assert [p.name for p in inside.output.iterdir() if p.suffix == ".png"] == []


def test_what_a_killed_run_left_is_removed(inside):
    save("deep/picture")
    left = inside.output / "deep" / ".partial-0-picture_00002_.png"
    left.write_bytes(b"half")
    clean_output(inside.output)
    assert not left.exists() and (inside.output / "deep/picture_00001_.png").exists()


def test_previews_go_to_the_temp_folder(inside):
    (shown,) = PreviewImage().preview_images(PIXELS)["ui"]["images"]
    assert shown["type"] == "temp" and (inside.temp / shown["filename"]).is_file()


# Loading pictures.


def test_alpha_becomes_the_mask(inside):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 3] = [[0, 255], [51, 255]]
    Image.fromarray(rgba).save(inside.input / "a.png")
    _, mask = LoadImage().load_image("a.png")
    assert torch.allclose(mask, torch.tensor([[[1.0, 0.0], [0.8, 0.0]]]))


def test_a_palette_with_a_transparent_colour(inside):
    picture = Image.new("P", (2, 2), 0)
    picture.putpalette([9, 9, 9, 1, 1, 1])
    picture.save(inside.input / "a.png", transparency=0)
    _, mask = LoadImage().load_image("a.png")
    assert torch.equal(mask, torch.ones(1, 2, 2))


def test_the_cameras_orientation_is_applied(inside):
    picture = Image.new("RGB", (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(inside.input / "a.jpg", exif=exif)
    assert LoadImage().load_image("a.jpg")[0].shape == (1, 6, 4, 3)


def test_sixteen_bits_of_grey(inside):
    Image.fromarray(np.full((2, 2), 32768, np.uint16)).save(inside.input / "a.png")
    image, _ = LoadImage().load_image("a.png")
    assert torch.allclose(image, torch.full((1, 2, 2, 3), 0.5), atol=1e-4)


def test_frames_become_a_batch(inside):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    frames[0].save(inside.input / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert LoadImage().load_image("a.webp")[0].shape == (3, 4, 4, 3)


def test_the_choices_are_the_pictures_of_the_folder(inside):
    for name in ("b.png", "a.JPG", "c.txt", ".hidden.png"):
        (inside.input / name).touch()
    choices, options = LoadImage.INPUT_TYPES()["required"]["image"]
    examples = sorted(path.name for path in EXAMPLES.iterdir())
    assert choices == ["a.JPG", "b.png", *examples] and options["image_upload"] is True


def test_a_changed_picture_is_noticed(inside):
    path = inside.input / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    before = LoadImage.IS_CHANGED("a.png")
    Image.new("RGB", (2, 2), "red").save(path)
    assert LoadImage.IS_CHANGED("a.png") != before


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0"]
)
def test_files_that_are_no_picture(inside, content):
    (inside.input / "a.png").write_bytes(content)
    answer = LoadImage.VALIDATE_INPUTS("a.png")
    assert isinstance(answer, str) and "a.png" in answer and "\n" not in answer
    with pytest.raises(InputFileError):
        LoadImage().load_image("a.png")


def test_a_truncated_picture(inside):
    save(images=torch.rand(1, 64, 64, 3))
    whole = (inside.output / "picture_00001_.png").read_bytes()
    (inside.input / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputFileError, match="not a whole picture"):
        LoadImage().load_image("a.png")


@pytest.fixture
def secret(inside, tmp_path):
    """A picture and a latent outside the folders, and links to them inside."""
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (inside.input / "link.png").symlink_to(tmp_path / "secret.png")
    (inside.input / "dir").symlink_to(tmp_path)
    (tmp_path / "secret.latent").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "../secret.{0}",
        "{1}/secret.{0}",
        "link.png",
        "dir/secret.{0}",
        "x/../../secret.{0}",
        "../secret.{0} [output]",
        "../secret.{0}[temp]",
        "a\0b",
        "a" * 5000,
        "",
        ".",
    ],
)
@pytest.mark.parametrize("loader", [LoadImage, LoadLatent])
def test_loading_stays_inside(secret, name, loader):
    suffix = "png" if loader is LoadImage else "latent"
    path = name.format(suffix, secret)
    answer = loader.VALIDATE_INPUTS(path)
    assert isinstance(answer, str) and "There is no file" in answer
    with pytest.raises(InputFileError):
        loader().load_image(path) if loader is LoadImage else loader().load(path)


def test_a_file_that_the_user_named_may_lie_anywhere(secret, inside):
    named = Folders(
        inside.input, inside.output, inside.temp, extra_inputs={"x.png": secret / "secret.png"}
    )
    with use(HostSurroundings(named)):
        assert LoadImage.VALIDATE_INPUTS("x.png") is True
        assert LoadImage().load_image("x.png")[0].shape == (1, 2, 2, 3)
        assert LoadImage.VALIDATE_INPUTS(str(secret / "secret.png")) is not True


# Latents.


def test_a_latent_comes_back_with_its_size(inside):
    latent = {
        "samples": torch.randn(2, 16, 3, 6),
        "wuerstchen_size": (256, 128),
        "batch_index": [0, 1],
        "noise_mask": torch.ones(1, 1, 8, 8),
    }
    (saved,) = SaveLatent().save(latent, "latents/x", prompt={})["ui"]["latents"]
    assert saved == {"filename": "x_00001_.latent", "subfolder": "latents", "type": "output"}
    (loaded,) = LoadLatent().load("latents/x_00001_.latent [output]")
    assert torch.equal(loaded.pop("samples"), latent["samples"])
    assert loaded == {"wuerstchen_size": (256, 128), "batch_index": [0, 1]}


def test_an_unversioned_latent_is_scaled(inside):
    from safetensors.torch import save_file

    save_file({"latent_tensor": torch.ones(1, 4, 2, 2)}, inside.input / "a.latent")
    (loaded,) = LoadLatent().load("a.latent")
    assert torch.allclose(loaded["samples"], torch.full((1, 4, 2, 2), 1 / 0.18215))


@pytest.mark.parametrize("content", [b"", b"not a latent", b"\xff" * 64])
def test_files_that_are_no_latent(inside, content):
    (inside.input / "a.latent").write_bytes(content)
    with pytest.raises(InputFileError, match="not a whole latent") as error:
        LoadLatent().load("a.latent")
    assert "\n" not in str(error.value)


def test_two_writers_never_take_the_same_name(inside):
    writers = [Thread(target=copy_context().run, args=(save,)) for _ in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(list(inside.output.glob("*.png"))) == 12
