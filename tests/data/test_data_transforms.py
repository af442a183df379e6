import pytest
import torch
from torchvision.transforms import v2

from neq.config.schema import DataProvider, MeanStd
from neq.data.transforms import eval_transform, train_transform

PLAIN = MeanStd(mean=(0, 0, 0), std=(1, 1, 1))


def noise(height: int, width: int) -> torch.Tensor:
    drawn = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.uint8)


@pytest.mark.parametrize("augmentation", ["photo", "square", "none"])
@pytest.mark.parametrize("shape", [(8, 8), (100, 37), (37, 100)])
def test_both_give_normalized_squares(augmentation: str, shape: tuple[int, int]) -> None:
    image = noise(*shape)
    for transform in (
        train_transform(DataProvider(), 24, augmentation, PLAIN),
        eval_transform(24, augmentation, PLAIN),
    ):
        result = transform(image)
        assert result.shape == (3, 24, 24)
        assert result.dtype == torch.float32
        assert result.min() >= 0
        assert result.max() <= 1


def test_normalization_is_per_channel() -> None:
    mean_std = MeanStd(mean=(0.5, 0.25, 0), std=(0.5, 1, 2))
    white = torch.full((3, 8, 8), 255, dtype=torch.uint8)
    result = eval_transform(8, "none", mean_std)(white)
    assert result[:, 0, 0].tolist() == [1, 0.75, 0.5]


def test_evaluated_photos_lose_their_border_only() -> None:
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    image[:, :, 18:46] = 255  # the 28 columns in the middle
    result = eval_transform(28, "photo", PLAIN)(image)  # shorter side 32, centre crop 28
    assert (result == 1).all()


def test_nothing_random_without_augmentation() -> None:
    image = noise(20, 20)
    train = train_transform(DataProvider(), 16, "none", PLAIN)
    assert torch.equal(train(image), eval_transform(16, "none", PLAIN)(image))


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


def test_square_training_images_are_flipped_and_jittered() -> None:
    image = noise(16, 16)
    assert len(results(train_transform(DataProvider(), 16, "square", PLAIN), image)) == 8
    plain = image.float() / 255
    flips = results(train_transform(DataProvider(color_aug=0), 16, "square", PLAIN), image)
    assert len(flips) == 2
    assert all(any(torch.allclose(flip, side) for flip in flips) for side in (plain, plain.flip(2)))


def test_resize_scale_bounds_the_crop() -> None:
    image = noise(16, 16)
    assert len(results(train_transform(DataProvider(color_aug=0), 16, "photo", PLAIN), image)) == 8
    grey = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    whole = train_transform(DataProvider(color_aug=0, resize_scale=1), 64, "photo", PLAIN)
    spans = [float(result.max() - result.min()) * 255 for result in results(whole, grey)]
    assert min(spans) > 40  # a crop of the whole area spans nearly all 64 greys
