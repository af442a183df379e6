import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from neq.config.schema import Augmentation, DataProvider, MeanStd
from neq.data.transforms import eval_transform, normalization, train_transform


def noise(height: int, width: int) -> torch.Tensor:
    drawn = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.uint8)


@pytest.mark.parametrize("augmentation", ["photo", "square", "none"])
@pytest.mark.parametrize("shape", [(8, 8), (100, 37), (37, 100)])
def test_both_give_squares(augmentation: Augmentation, shape: tuple[int, int]) -> None:
    image = noise(*shape)
    for transform in (
        train_transform(DataProvider(), 24, augmentation),
        eval_transform(24, augmentation),
    ):
        result = transform(image)
        assert result.shape == (3, 24, 24)
        assert result.dtype == torch.uint8


def test_normalization_is_per_channel() -> None:
    mean_std = MeanStd(mean=(0.5, 0.25, 0), std=(0.5, 1, 2))
    white = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    result = normalization(mean_std)(white)
    assert result.dtype == torch.float32
    assert result[1, :, 0, 0].tolist() == [1, 0.75, 0.5]


def test_normalizing_a_batch_gives_the_bits_of_normalizing_its_images() -> None:
    normalize = normalization(MeanStd(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    images = list(noise(40, 17).split(8, dim=1))
    assert torch.equal(normalize(torch.stack(images)), torch.stack([normalize(image) for image in images]))


def test_evaluated_photos_lose_their_border_only() -> None:
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    image[:, :, 18:46] = 255  # the 28 columns in the middle
    result = eval_transform(28, "photo")(image)  # shorter side 32, centre crop 28
    assert (result == 255).all()


class Largest(TorchDispatchMode):
    """Records the values of the largest tensor that an operation returns."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(each, torch.Tensor):
                self.values = max(self.values, each.numel())
        return result


@pytest.mark.parametrize(("height", "width"), [(1, 4000), (4000, 1), (30, 250), (250, 30), (7, 59)])
def test_an_elongated_photo_is_cropped_before_it_is_resized(height: int, width: int) -> None:
    # In the middle of the range, as torchvision's way of clipping depends on the processor.
    image = noise(height, width) // 4 + 96
    long = int(32 * max(height, width) / min(height, width))
    plain = v2.Resize([32], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)(image)
    assert max(plain.shape) == long
    with Largest() as largest:
        result = eval_transform(28, "photo")(image)
    assert largest.values <= max(image.numel(), 3 * 28 * 28)
    expected = v2.CenterCrop(28)(plain)
    assert (result.int() - expected.int()).abs().max() <= 2


def test_other_photos_are_resized_as_a_whole() -> None:
    image = noise(30, 240)
    resize = v2.Resize([32], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(eval_transform(28, "photo")(image), v2.CenterCrop(28)(resize(image)))


def test_nothing_random_without_augmentation() -> None:
    image = noise(20, 20)
    train = train_transform(DataProvider(), 16, "none")
    assert torch.equal(train(image), eval_transform(16, "none")(image))


def results(transform: v2.Transform, image: torch.Tensor) -> list[torch.Tensor]:
    """Results of eight seeds, those that were seen before left out."""
    different: list[torch.Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(8):
            torch.default_generator.manual_seed(seed)
            result = transform(image)
            if not any(torch.equal(result, other) for other in different):
                different.append(result)
    return different


def test_square_training_images_are_flipped_and_nothing_else() -> None:
    image = noise(16, 16)
    flips = results(train_transform(DataProvider(), 16, "square"), image)
    assert len(flips) == 2
    assert all(any(torch.equal(flip, side) for flip in flips) for side in (image, image.flip(2)))


def test_photos_are_jittered() -> None:
    image = noise(16, 16)
    whole = {"resize_scale": 1}
    assert len(results(train_transform(DataProvider(**whole), 16, "photo"), image)) == 8
    grey = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    still = results(train_transform(DataProvider(**whole, color_aug=0), 16, "photo"), grey)
    assert len(still) == 1
    shades = [int(result[0, 0, 0]) for result in results(train_transform(DataProvider(), 16, "photo"), grey)]
    assert 60 <= min(shades) < 100 < max(shades) <= 140


def test_resize_scale_bounds_the_crop() -> None:
    image = noise(16, 16)
    assert len(results(train_transform(DataProvider(color_aug=0), 16, "photo"), image)) == 8
    grey = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    whole = train_transform(DataProvider(color_aug=0, resize_scale=1), 64, "photo")
    spans = [int(result.max()) - int(result.min()) for result in results(whole, grey)]
    assert min(spans) > 40  # a crop of the whole area spans nearly all 64 greys
