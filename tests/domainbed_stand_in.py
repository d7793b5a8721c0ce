"""A small stand-in of a DomainBed checkout: its names and contracts, none of its code; written into a folder by tests."""

from __future__ import annotations

from pathlib import Path

_MISC = """
import hashlib


def seed_hash(*args):
    return int(hashlib.md5(str(args).encode()).hexdigest(), 16) % (2**31)
"""

_NETWORKS = """
from torch import nn


class ResNet(nn.Module):
    pass


def Featurizer(input_shape, hparams):
    raise NotImplementedError("the stand-in has no networks of its own")


def Classifier(in_features, out_features, is_nonlinear=False):
    return nn.Linear(in_features, out_features)
"""

_HPARAMS = """
import numpy as np

from domainbed.lib import misc


def _hparams(algorithm, dataset, random_seed):
    found = {}

    def _hparam(name, default, draw):
        found[name] = (default, draw(np.random.RandomState(misc.seed_hash(random_seed, name))))

    _hparam("data_augmentation", True, lambda r: True)
    _hparam("class_balanced", False, lambda r: False)
    _hparam("resnet_dropout", 0.0, lambda r: r.choice([0.0, 0.1, 0.5]))
    _hparam("nonlinear_classifier", False, lambda r: bool(r.choice([False, False])))
    _hparam("lr", 1e-3 if dataset == "ColoredMNIST" else 5e-5, lambda r: 10 ** r.uniform(-5, -3.5))
    _hparam("weight_decay", 0.0, lambda r: 10 ** r.uniform(-6, -2))
    _hparam("batch_size", 32, lambda r: int(2 ** r.uniform(3, 5.5)))
    if algorithm == "Twin":
        _hparam("tau", 1, lambda r: r.uniform(0.5, 1.0))
        _hparam("n_meta", 2, lambda r: r.choice([1, 2]))
    return found


def default_hparams(algorithm, dataset):
    return {name: default for name, (default, drawn) in _hparams(algorithm, dataset, 0).items()}


def random_hparams(algorithm, dataset, seed):
    return {name: drawn for name, (default, drawn) in _hparams(algorithm, dataset, seed).items()}
"""

_ALGORITHMS = '''
import copy
import random

import numpy as np
import torch
from torch import nn

from domainbed import networks

ALGORITHMS = ["ERM", "Twin", "Context", "OnGPU", "Own"]


def get_algorithm_class(name):
    if name not in globals():
        raise NotImplementedError(name)
    return globals()[name]


class Algorithm(nn.Module):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__()
        self.hparams = hparams


class ERM(Algorithm):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = networks.Classifier(self.featurizer.n_outputs, num_classes)
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=hparams["lr"])

    def update(self, minibatches, unlabeled=None):
        x, y = torch.cat([x for x, y in minibatches]), torch.cat([y for x, y in minibatches])
        loss = nn.functional.cross_entropy(self.network(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def predict(self, x):
        assert not self.training
        return self.network(x)


class Twin(ERM):
    """All the places where DomainBed's algorithms keep what changes, outside of the state of a module."""

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.count = 0
        self.register_buffer("weights", torch.zeros(0))
        self.heads = [nn.Linear(self.featurizer.n_outputs, num_classes) for _ in range(num_domains)]
        self.head_optimizers = [torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9) for head in self.heads]
        self.kept = {"inner": None}
        self.average = copy.deepcopy(self.classifier)

    def update(self, minibatches, unlabeled=None):
        assert self.training and unlabeled is None
        inner = networks.Featurizer((3, 8, 8), self.hparams)
        if len(self.weights) == 0:
            self.weights = torch.ones(len(minibatches))
        for index, (x, y) in enumerate(minibatches):
            with torch.no_grad():
                features = self.featurizer(x) + inner(x)
            loss = nn.functional.cross_entropy(self.heads[index](features), y)
            self.head_optimizers[index].zero_grad()
            loss.backward()
            self.head_optimizers[index].step()
            self.weights[index] *= loss.item() + random.random() + np.random.rand() + torch.rand(1).item()
        if self.count == 2:
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.hparams["lr"] * self.hparams["tau"])
        if self.count == 1:
            self.kept["inner"] = torch.optim.Adam(self.average.parameters(), lr=0.01).state_dict()
        self.count += 1
        logs = super().update(minibatches)
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.classifier.parameters()):
                mean.lerp_(now, float(self.weights.mean() % 1))
        return {**logs, "weights": self.weights.sum().item()}

    def predict(self, x):
        assert not self.training
        features = self.featurizer(x)
        noise = torch.randn(len(x), 1)
        return self.classifier(features) + self.average(features * noise) + sum(head(features) for head in self.heads)


class Context(ERM):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__((1 + input_shape[0], *input_shape[1:]), num_classes, num_domains, hparams)


class OnGPU(ERM):
    def update(self, minibatches, unlabeled=None):
        raise RuntimeError("Found no NVIDIA driver on your system. Please check")


class Own(ERM):
    def __init__(self, *args):
        super().__init__(*args)
        assert hasattr(self.featurizer, "conv1"), "wants a network of its own"
'''

_DATASETS = """
import os

from torchvision import transforms
from torchvision.datasets import ImageFolder

DATASETS = ["Toy", "Bare"]


class Toy:
    N_STEPS = 7
    N_WORKERS = 8
    CHECKPOINT_FREQ = 3
    ENVIRONMENTS = ["drawn", "painted", "photo"]
    input_shape = (3, 64, 64)

    def __init__(self, root, test_envs, hparams):
        transform = transforms.Compose([
            transforms.Resize((64, 64)),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ])
        folder = os.path.join(root, "toy")
        self.datasets = [ImageFolder(os.path.join(folder, env), transform) for env in sorted(os.listdir(folder))]
        self.num_classes = len(self.datasets[-1].classes)


class Bare(Toy):
    def __init__(self, root, test_envs, hparams):
        self.datasets = [object(), object()]
        self.num_classes = 2
"""

_TRAIN = """
import argparse
import json
import os

import torch

from domainbed import algorithms, datasets, hparams_registry

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir")
    parser.add_argument("--dataset")
    parser.add_argument("--algorithm")
    parser.add_argument("--hparams")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--test_envs", type=int, nargs="+", default=[0])
    parser.add_argument("--trial_seed", type=int, default=0)
    parser.add_argument("--hparams_seed", type=int, default=0)
    parser.add_argument("--output_dir")
    args = parser.parse_args()
    hparams = hparams_registry.default_hparams(args.algorithm, args.dataset)
    hparams.update(json.loads(args.hparams or "{}"))
    torch.manual_seed(0)
    dataset = vars(datasets)[args.dataset](args.data_dir, args.test_envs, hparams)
    training = [env for i, env in enumerate(dataset.datasets) if i not in args.test_envs]
    kind = algorithms.get_algorithm_class(args.algorithm)
    algorithm = kind(dataset.input_shape, dataset.num_classes, len(training), hparams)
    algorithm.to("cpu")

    def batch(env, step):
        pairs = [env[(7 * step + 11 * i) % len(env)] for i in range(hparams["batch_size"])]
        return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])

    def accuracy(env):
        algorithm.eval()
        x, y = zip(*(env[i] for i in range(0, len(env), 2)))
        with torch.no_grad():
            found = algorithm.predict(torch.stack(x)).argmax(1)
        algorithm.train()
        return (found == torch.tensor(y)).float().mean().item()

    os.makedirs(args.output_dir, exist_ok=True)
    for step in range(args.steps or dataset.N_STEPS):
        results = algorithm.update([batch(env, step) for env in training], None)
    for i, env in enumerate(dataset.datasets):
        results[f"env{i}_in_acc"] = results[f"env{i}_out_acc"] = accuracy(env)
    results.update({"step": step, "args": vars(args), "hparams": hparams, "n_workers": dataset.N_WORKERS})
    with open(os.path.join(args.output_dir, "results.jsonl"), "a") as file:
        file.write(json.dumps(results, sort_keys=True) + "\\n")
    torch.save({"model_dict": algorithm.state_dict()}, os.path.join(args.output_dir, "model.pkl"))
    with open(os.path.join(args.output_dir, "done"), "w") as file:
        file.write("done")
"""

_FILES = {
    "__init__.py": "",
    "algorithms.py": _ALGORITHMS,
    "networks.py": _NETWORKS,
    "hparams_registry.py": _HPARAMS,
    "datasets.py": _DATASETS,
    "lib/__init__.py": "",
    "lib/misc.py": _MISC,
    "scripts/__init__.py": "",
    "scripts/train.py": _TRAIN,
}


def write(root: Path) -> Path:
    """Write the stand-in below `root`; give the checkout's folder."""
    for name, text in _FILES.items():
        path = root / "domainbed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
