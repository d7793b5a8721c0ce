import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from bench.augmentation import GREY_PROBABILITY, JITTER, SCALE, augment, crop_box, jitter, turn_hue


def images(n: int) -> list[np.ndarray]:
    stream = np.random.default_rng(0)
    return [stream.integers(0, 256, (50 + 7 * i, 80, 3), dtype=np.uint8) for i in range(n)]


@given(height=st.integers(1, 400), width=st.integers(1, 400), seed=st.integers(0, 10_000))
def test_crop_box_lies_inside_the_image(height: int, width: int, seed: int) -> None:
    top, left, high, wide = crop_box(height, width, np.random.default_rng(seed))
    assert top >= 0 and left >= 0 and high >= 1 and wide >= 1
    assert top + high <= height and left + wide <= width


@pytest.mark.parametrize("shape", [(300, 300), (100, 300)])
def test_crop_box_is_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    from torchvision.transforms.v2 import RandomResizedCrop

    torch.manual_seed(0)
    transform = RandomResizedCrop(224, scale=SCALE)
    theirs = np.array(
        [
            [box[key] for key in ("top", "left", "height", "width")]
            for box in (transform.make_params([torch.zeros(3, *shape)]) for _ in range(3000))
        ]
    )
    draws = np.random.default_rng(0)
    ours = np.array([crop_box(*shape, draws) for _ in range(3000)])
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.012 * max(shape))
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=0.012 * max(shape))


@pytest.mark.parametrize("flavour", ["clipood", "domainbed"])
def test_augment_is_a_function_of_its_stream(flavour: str) -> None:
    first = augment(images(5), 32, flavour, np.random.default_rng(1))
    again = augment(images(5), 32, flavour, np.random.default_rng(1))
    other = augment(images(5), 32, flavour, np.random.default_rng(2))
    assert first.shape == (5, 3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_augment_flips_half_of_the_images() -> None:
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    made = augment([ramp] * 400, 16, "clipood", np.random.default_rng(0)).float()
    flipped = (made[:, 0, 8, 0] > made[:, 0, 8, -1]).float().mean()
    assert 0.42 < flipped < 0.58


def test_augment_of_a_flat_image_changes_nothing_but_its_size() -> None:
    flat = np.full((90, 60, 3), (10, 200, 30), dtype=np.uint8)
    made = augment([flat], 24, "clipood", np.random.default_rng(0))
    assert (made == torch.tensor([10, 200, 30], dtype=torch.uint8).view(1, 3, 1, 1)).all()


@pytest.mark.parametrize("size", [24, 48, 96])
def test_a_batch_is_torchvisions_crop_resize_and_flip_to_the_bit(size: int) -> None:
    from torchvision.transforms.v2 import functional

    whole, draws = images(12), np.random.default_rng(4)
    expected = []
    for image in whole:
        box = crop_box(*image.shape[:2], draws)
        one = functional.resized_crop(torch.from_numpy(image).permute(2, 0, 1), *box, [size, size], antialias=True)
        expected.append(functional.horizontal_flip(one) if draws.random() < 0.5 else one)
    made = augment(whole, size, "clipood", np.random.default_rng(4))
    assert torch.equal(made, torch.stack(expected))
    assert made.is_contiguous(memory_format=torch.channels_last)


def torchvisions_jitter(image: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
    """Give torchvision's functions one after the other, with the same draws."""
    factors = draws.uniform(1 - JITTER, 1 + JITTER, size=3).tolist()
    hue = float(draws.uniform(-JITTER, JITTER))
    steps = [
        lambda image: functional.adjust_brightness(image, factors[0]),
        lambda image: functional.adjust_contrast(image, factors[1]),
        lambda image: functional.adjust_saturation(image, factors[2]),
        lambda image: functional.adjust_hue(image, hue),
    ]
    for which in draws.permutation(4):
        image = steps[which](image)
    is_grey = draws.random() < GREY_PROBABILITY
    return functional.rgb_to_grayscale(image, num_output_channels=3) if is_grey else image


@given(
    st.sampled_from([(1, 1), (33, 17), (64, 64), (96, 95)]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 5, 85, 255]),
)
def test_jitter_gives_torchvisions_bytes(shape: tuple[int, int], seed: int, coarseness: int) -> None:
    """Also of images with few colours, where grey, black and equal parts are common."""
    draws = np.random.default_rng(seed)
    pixels = draws.integers(0, 255 // coarseness + 1, (*shape, 3), dtype=np.uint8) * coarseness
    image = torch.from_numpy(pixels.astype(np.uint8)).permute(2, 0, 1)
    made = jitter(image, np.random.default_rng(seed))
    assert torch.equal(made.to(torch.uint8), torchvisions_jitter(image, np.random.default_rng(seed)))
    assert torch.equal(made, made.floor())


@pytest.mark.parametrize("turn", [-0.5, -0.2999, -0.1, 0.0, 1e-9, 0.07, 0.3, 0.5])
def test_hues_turn_as_torchvisions_whatever_the_colour(turn: float) -> None:
    """Every ninth level of each colour with every other, with black, white and what differs from them by one."""
    levels = torch.tensor([*range(0, 256, 9), 1, 254, 255], dtype=torch.uint8)
    image = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).flatten(2)
    turned = image.float()
    turn_hue(turned, turn)
    assert torch.equal(turned.to(torch.uint8), functional.adjust_hue(image, turn))
