from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import images as bench_images
from bench.augmentation import augment
from bench.dataset import Dataset, read_domain
from bench.errors import BadImage, SpecError
from bench.images import Batches, ImageStore, read_picture
from bench.models import ImageSpec
from bench.protocols import Task, View

IMAGE = ImageSpec(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def view(store: ImageStore, domain: int, n: int = 30) -> View:
    return View(
        f"env{domain}_in", domain, np.arange(n), store.dataset.domains[domain].labels[:n], ("cat", "sports car")
    )


def task(*views: View, unlabeled: tuple[View, ...] = ()) -> Task:
    return Task(views[0].class_names, views, unlabeled, ())


@pytest.fixture
def store(small_dataset: Dataset, tmp_path: Path) -> ImageStore:
    return ImageStore(small_dataset, IMAGE, tmp_path / "cache")


def test_centre_equals_open_clips_evaluation_transform(small_dataset: Dataset, store: ImageStore) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    transform = image_transform_v2(PreprocessCfg(size=32, mean=IMAGE.mean, std=IMAGE.std), is_train=False)
    domain = small_dataset.domains[0]
    expected = torch.stack([transform(Image.open(domain.root / file)) for file in domain.files])
    batches = Batches(store, 0, 4, "none", torch.device("cpu"))
    got = batches.normalise(store.centre(0, np.arange(len(domain.files))))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_store_decodes_once(small_dataset: Dataset, tmp_path: Path) -> None:
    told: list[str] = []
    first = ImageStore(small_dataset, IMAGE, tmp_path, told.append)
    assert told
    told.clear()
    second = ImageStore(small_dataset, IMAGE, tmp_path, told.append)
    assert not told
    assert first.digest == second.digest
    assert not [path for path in (tmp_path / "decoded").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("missing", ["index.npy", "centre.npy", "whole.bin", "meta.json"])
@pytest.mark.parametrize("cut", [False, True])
def test_what_an_interruption_left_of_decoded_images_is_made_anew(
    small_dataset: Dataset, tmp_path: Path, missing: str, cut: bool
) -> None:
    image = ImageSpec(32, (0.5,) * 3, (0.5,) * 3)
    whole = ImageStore(small_dataset, image, tmp_path, lambda line: None)
    before = [np.array(each.whole) for each in whole.domains]
    (folder,) = (each for each in (tmp_path / "decoded").iterdir() if f"-{small_dataset.domains[0].name}-" in each.name)
    path = folder / missing
    if cut:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if missing != "meta.json" else 0])
    else:
        path.unlink()
    again = ImageStore(small_dataset, image, tmp_path, lambda line: None)
    assert whole.digest == again.digest
    assert all(np.array_equal(one, other.whole) for one, other in zip(before, again.domains, strict=True))
    assert not [each.name for each in (tmp_path / "decoded").iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_an_image_of_more_than_eight_bits_is_bad_and_not_white(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    path = tmp_path / "deep.tiff"
    Image.fromarray(np.arange(64, dtype=np.uint16 if mode == "I;16" else np.int32).reshape(8, 8)).convert(mode).save(
        path
    )
    assert "convert it to 8 bits" in read_picture(path)[1]


def test_long_names_make_folders(small_dataset: Dataset, tmp_path: Path) -> None:
    dataset = dataclasses.replace(small_dataset, name="folder:" + "日本語" * 40)
    store = ImageStore(dataset, ImageSpec(16, (0.5,) * 3, (0.5,) * 3), tmp_path, lambda line: None)
    assert len(store.domains) == len(dataset.domains)


def test_digest_follows_the_bytes_of_the_files(small_dataset: Dataset, small_images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_images, copy)
    names = ("drawn", "painted", "photo")

    def read() -> ImageStore:
        domains = tuple(read_domain(name, copy, name, ("cat", "sports_car")) for name in names)
        return ImageStore(Dataset("toy", ("cat", "sports car"), domains), IMAGE, tmp_path / "cache")

    original = ImageStore(small_dataset, IMAGE, tmp_path / "cache")
    assert read().digest == original.digest
    shutil.copy(copy / "photo" / "cat" / "000.jpg", copy / "photo" / "cat" / "002.jpg")
    assert read().digest != original.digest


def test_whole_images_keep_room_for_crops(store: ImageStore, small_dataset: Dataset) -> None:
    for domain in store.domains:
        shorts = np.minimum(domain.heights, domain.widths)
        assert (shorts == 39).all()  # ceil(1.2 * 32); every file is larger than that
        assert domain.image(3).shape == (domain.heights[3], domain.widths[3], 3)


@pytest.fixture
def broken(small_images: Path, tmp_path: Path) -> Dataset:
    root = tmp_path / "broken"
    shutil.copytree(small_images, root)
    file = root / "photo" / "cat" / "004.jpg"
    file.write_bytes(file.read_bytes()[:300])
    domains = tuple(read_domain(name, root, name, ("cat", "sports_car")) for name in ("drawn", "painted", "photo"))
    return Dataset("toy", ("cat", "sports car"), domains)


def test_a_truncated_image_is_named(broken: Dataset, tmp_path: Path) -> None:
    store = ImageStore(broken, IMAGE, tmp_path / "cache")
    with pytest.raises(BadImage, match=r"photo/cat/004\.jpg.*--skip-bad-images"):
        store.refuse_bad_images()


def test_a_bad_image_leaves_its_views_and_nothing_else(broken: Dataset, tmp_path: Path) -> None:
    store = ImageStore(broken, IMAGE, tmp_path / "cache")
    before = view(store, 2)
    after = store.without_bad(before)
    assert set(before.indices) - set(after.indices) == {4}
    assert (after.labels == broken.domains[2].labels[after.indices]).all()
    assert len(store.without_bad(view(store, 0))) == 30
    assert len(store.bad) == 1


def test_batches_are_a_function_of_seed_domain_and_step(store: ImageStore) -> None:
    a = Batches(store, 0, 8, "clipood", torch.device("cpu"))
    b = Batches(store, 0, 8, "clipood", torch.device("cpu"))
    assert torch.equal(a.draw(view(store, 1), 7)[0], b.draw(view(store, 1), 7)[0])
    others = [
        a.draw(view(store, 1), 8),
        a.draw(view(store, 0), 7),
        Batches(store, 1, 8, "clipood", torch.device("cpu")).draw(view(store, 1), 7),
    ]
    reference = a.draw(view(store, 1), 7)
    assert all(not torch.equal(reference[2], other[2]) for other in others)


def test_steps_do_not_depend_on_where_they_start(store: ImageStore) -> None:
    work = task(view(store, 0), view(store, 1), unlabeled=(view(store, 2),))
    batches = Batches(store, 0, 4, "clipood", torch.device("cpu"))
    whole = list(batches.steps(work, 0, 5))
    tail = list(batches.steps(work, 3, 5))
    for (labelled, unlabeled), (labelled_again, unlabeled_again) in zip(whole[3:], tail, strict=True):
        pairs = zip([*labelled, *unlabeled], [*labelled_again, *unlabeled_again], strict=True)
        assert all(torch.equal(x, y) for one, other in pairs for x, y in zip(one, other, strict=True))
    labelled, unlabeled = whole[0]
    assert len(labelled) == 2 and len(unlabeled) == 1
    assert (unlabeled[0].labels == -1).all() and (labelled[0].labels >= 0).all()


def test_batches_are_drawn_by_one_core_beside_the_update(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    drawing = []

    def noting(*arguments: Any) -> torch.Tensor:
        drawing.append(torch.get_num_threads())
        return augment(*arguments)

    monkeypatch.setattr(bench_images, "augment", noting)
    try:
        for _ in Batches(store, 0, 4, "clipood", torch.device("cpu")).steps(task(view(store, 0)), 0, 2):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert drawing == [1, 1]


def test_labels_and_positions_fit_the_images(store: ImageStore, small_dataset: Dataset) -> None:
    chosen = View("env0_in", 0, np.array([5, 30, 17]), small_dataset.domains[0].labels[[5, 30, 17]], ("cat", "car"))
    images, labels, positions = Batches(store, 0, 3, "none", torch.device("cpu")).draw(chosen, 0)
    assert torch.equal(images, store.centre(0, chosen.indices[positions.numpy()]))
    assert labels.tolist() == chosen.labels[positions.numpy()].tolist()


def test_a_batch_larger_than_its_view_is_refused(store: ImageStore) -> None:
    batches = Batches(store, 0, 31, "clipood", torch.device("cpu"))
    with pytest.raises(SpecError, match=r"batch_size=31 is larger than env0_in of toy \(30 images\)"):
        batches.check((view(store, 0),))


def test_two_builders_at_once_leave_one_whole_cache(small_dataset: Dataset, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        stores: list[Any] = list(pool.map(lambda _: ImageStore(small_dataset, IMAGE, tmp_path), range(3)))
    assert len({store.digest for store in stores}) == 1
    assert len(list((tmp_path / "decoded").iterdir())) == 3


def test_normalising_rows_equals_normalising_colours_to_the_bit() -> None:
    from bench.images import Normalise

    pixels = torch.randint(0, 256, (3, 3, 20, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scale, shift = 1 / (255 * torch.tensor(IMAGE.std)), -torch.tensor(IMAGE.mean) / torch.tensor(IMAGE.std)
    expected = pixels.float() * scale.view(1, 3, 1, 1) + shift.view(1, 3, 1, 1)
    made = Normalise(IMAGE, torch.device("cpu"))(pixels)
    assert torch.equal(made, expected) and made.is_contiguous(memory_format=torch.channels_last)
