"""Every option of a training run, defined and explained once, with the named recipes.

The command line, `--config` files and `config.json` of a run folder all speak this one structure; unknown keys are errors. What an
option does stands beside it; how it acts on the loss is in `objective`.
"""

import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from catvae.runtime.errors import DataError, UsageError

from .setting_words import called, misfit, nearest

Net = Literal["conv", "mlp"]
Augment = Literal["auto", "digits", "objects", "any-angle", "none"]
Colours = Literal["keep", "vary", "ignore"]
Device = Literal["auto", "cpu", "cuda"]

LARGEST_SEED = 2**31 - 1


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run, resolved: see `resolve` for how recipe, file and options combine."""

    recipe: Literal["robust", "paper"] = "robust"
    """robust: sorts well from scratch; paper: the published configuration of InfoCatVAE."""
    legacy: bool = False
    """With recipe=paper: also the published code's own deviations from the paper's equations, for comparison."""
    objective: Literal["infocatvae", "catvae"] = "infocatvae"
    """catvae leaves out the information term on generated images."""

    clusters: int | Literal["auto"] = 10
    """K; auto: chosen at the first merge of over-clusters."""
    max_clusters: int = 20
    """The largest K that may be chosen."""
    delta: int = 4
    """Latent dimensions per cluster; D = K * delta."""
    lam: float = msgspec.field(default=2.5, name="lambda")
    """Prior mean of a cluster on its own block. lambda * sqrt(delta) >= 4.5 keeps the modes apart."""
    net: Net = "conv"
    """conv: stride-2 convolutions with batch norm; mlp: the paper's one hidden layer."""
    hidden: int = 256
    """Width of the last hidden layer."""
    tone: float = 0.1
    """Share of its mean that each channel of a colour image keeps on its way into net=conv: with all of it clusters follow the light."""
    dropout: float = 0.0
    """Dropout on the hidden layers of net=mlp."""
    offsets: Literal["prior", "random"] = "prior"
    """Initial cluster offsets E: the prior means, or near zero like the columns of a linear layer."""

    path: Literal["sample", "soft", "gumbel"] = "sample"
    """Which z is decoded: of a cluster drawn from q(c|x), of the soft mixture of clusters, or of a Gumbel-softmax draw."""
    neg_entropy_weight: float = 0.0
    """Weight of sum_c q log q; 1 is the ELBO, 0 lets assignments become certain."""
    information_weight: float = 20.0
    """Nats per image of the InfoCatVAE term."""
    information_trains: Literal["decoder", "both"] = "decoder"
    """decoder: the information term trains only the decoder. both: the encoder too, as in the paper; it then learns to read patterns of
    pixels that no other classifier sees."""
    information_views: bool = True
    """Whether generated images are recognised through a random view: what survives a view is no accident of pixels."""
    generated_per_cluster: int = 16
    """Images drawn per cluster and step for the information term; fewer where they would be more than 2,048 in all."""
    invariance_weight: float = 20.0
    """Weight of the mutual information between the assignments of an image and of a view of it (arXiv 1807.06653)."""
    marginal_weight: float = 1.5
    """Weight of the marginal entropies inside that mutual information: above 1 keeps clusters from emptying."""
    overclusters: int = 5
    """Over-clusters per cluster, on an auxiliary head, at most 1,000 in all; 0 removes the head."""
    regroup: tuple[float, ...] = (0.4, 0.6, 0.8)
    """Shares of the steps at which over-clusters are merged into K groups. Clusters are trained on the first merge. A later one replaces it
    if its groups share at least `steering.GAIN` nats more with neighbours, and always where groups are of unequal size."""
    sizes: Literal["auto", "equal", "unequal"] = "auto"
    """equal: merge by mutual information, which prefers groups of equal size. unequal: merge by separation, for sets where some kinds are
    rare or one fills most of the set. auto: equal, unless `grouping.unequal_is_clearer` at the first merge."""
    warm_start: float = 0.4
    """Share of the steps that train the clusters alone, on views; after them the generator is trained too."""
    guard: bool = True
    """Act on clusters that collapse while training."""
    label_weight: float = 0.0
    """Weight of the cross-entropy, in nats, of the few images given with --labels; 0: they only name clusters."""
    starts: int = 0
    """Starts: short runs to begin with, of which the one with the largest `starts.worth` goes on. 0: three where clusters are trained by
    views, else one."""
    augment: Augment = "auto"
    """Views: digits (affine), objects (mirror, brightness, slight affine), any-angle (as objects, rotated all round), none (noise only),
    auto (by symmetry)."""

    colours: Colours = "vary"
    """What views do to colours. keep: next to nothing, for kinds that differ in shades of one colour. vary: light, contrast and tint
    change, on colour images of objects. ignore: hues rotate all round and half of the views are negatives, for kinds that differ in outline
    on any background."""

    epochs: int = 0
    """0: as many as the data needs, at least 12; at least 1,000 steps, and 2,500 with views of things."""
    batch_size: int = 256
    """Images per step, over all ranks."""
    learning_rate: float = 1e-3
    """Adam's step size, at its largest."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate changes: warmed up and then falling along a cosine, or constant."""
    seed: int = 0
    """Seed of weights, order and noise: on one machine the same seed gives the same result."""
    device: Device = "auto"
    """auto: CUDA where it is there, else the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: every matrix product and convolution in bfloat16, all else of the loss in fp32; auto: where the processor has bfloat16
    instructions."""

    def __post_init__(self) -> None:
        bounds = {
            "clusters": (1, 1_000),
            "max_clusters": (2, 200),
            "delta": (1, 1_000),
            "hidden": (1, 65_536),
            "epochs": (0, 1_000_000),
            "batch_size": (2, 1_000_000),
            "generated_per_cluster": (1, 10_000),
            "overclusters": (0, 100),
            "starts": (0, 100),
            "seed": (0, LARGEST_SEED),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value != "auto" and not low <= value <= high:
                raise UsageError(f"{called(name)} is {value}, expected {low} to {high}")
        for name in ("lam", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise UsageError(f"{called(name)} is {value}, expected a positive number")
        for name in ("neg_entropy_weight", "information_weight", "invariance_weight", "marginal_weight", "label_weight"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise UsageError(f"{called(name)} is {value}, expected zero or more")
        if not all(0 < share < 1 for share in self.regroup):
            raise UsageError(f"regroup is {list(self.regroup)}, expected shares of the steps between 0 and 1")
        if not 0 <= self.warm_start <= 1:
            raise UsageError(f"warm_start is {self.warm_start}, expected a share of the steps between 0 and 1")
        if self.chooses_clusters and not self.merges:
            raise UsageError("-k auto needs over-clusters and their merges, which the recipe robust has")
        if not 0 <= self.tone <= 1:
            raise UsageError(f"tone is {self.tone}, expected 0 to 1")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}, expected 0 <= dropout < 1")
        if self.legacy and self.recipe != "paper":
            raise UsageError(f"--legacy belongs to --recipe paper, got --recipe {self.recipe}")

    @property
    def chooses_clusters(self) -> bool:
        """Whether K is to be chosen."""
        return self.clusters == "auto"

    @property
    def merges(self) -> bool:
        """Whether over-clusters are merged into clusters; without views they learn nothing."""
        return bool(self.overclusters and self.regroup and self.invariance_weight)

    @property
    def most_clusters(self) -> int:
        """K, or the largest that may be chosen."""
        return self.max_clusters if self.clusters == "auto" else self.clusters

    def epochs_for(self, steps_per_epoch: int, least_steps: int) -> int:
        """Epochs of a run whose epoch has that many steps."""
        return self.epochs or max(12, math.ceil(least_steps / steps_per_epoch))


RECIPES: dict[str, dict[str, Any]] = {
    "robust": {},
    "paper": {
        "delta": 2,
        "lambda": 2.0,
        "net": "mlp",
        "hidden": 400,
        "dropout": 0.25,
        "offsets": "random",
        "neg_entropy_weight": 1.0,
        "information_weight": 1.0,
        "information_trains": "both",
        "information_views": False,
        "generated_per_cluster": 10,
        "invariance_weight": 0.0,
        "overclusters": 0,
        "regroup": (),
        "warm_start": 0.0,
        "guard": False,
        "epochs": 20,
        "batch_size": 128,
        "schedule": "constant",
        "precision": "fp32",
    },
}

# The published code sums the ELBO over 128 images and adds 100 times a mean information term: 100/128 nats per image.
LEGACY = {"path": "soft", "information_weight": 100 / 128}


def resolve(options: dict[str, Any], file: dict[str, Any] | None = None) -> TrainConfig:
    """Combine, weakest first: defaults, the recipe's values, a configuration file, explicit options.

    Parameters
    ----------
    options, file : dict
        Keys as in `config.json` (``lambda``, not ``lam``). An option that was not given is absent.

    Raises
    ------
    UsageError
        On an unknown key (with the nearest known one), a value of a wrong type or out of range, and where `sizes`, `augment`, `colours`,
        `dropout`, `tone`, `legacy` or ``clusters="auto"`` ask for what the rest leaves out.
    """
    file = file or {}
    given = {**file, **options}
    for key in given:
        if key not in KEYS:
            raise UsageError(f"unknown setting '{key}'{nearest(key, KEYS)}")
    for name in ("recipe", "legacy"):
        if name in options and file.get(name, options[name]) != options[name]:
            flag = f"--recipe {options[name]}" if name == "recipe" else "--legacy"
            raise UsageError(f"{flag} beside a configuration file with {name} {file[name]!r} and its values: leave out one of them")
    recipe = given.get("recipe", "robust")
    values = {**RECIPES.get(str(recipe), {}), **(LEGACY if given.get("legacy") else {}), **given}
    try:
        config = msgspec.convert(values, TrainConfig)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        raise cause if isinstance(cause, UsageError) else UsageError(misfit(TrainConfig, values) or f"configuration: {error}") from error
    if config.sizes != "auto" and not config.merges:
        raise UsageError(f"--sizes {config.sizes} needs over-clusters and their merges, which the recipe robust has")
    _refuse_idle(config, msgspec.convert({**RECIPES[config.recipe], "recipe": config.recipe}, TrainConfig))
    generates = config.objective == "infocatvae" and config.information_weight
    views = config.invariance_weight or (config.information_views and generates)
    for name, value, usual in (("augment", config.augment, "auto"), ("colours", config.colours, "vary")):
        if value != usual and not views:
            raise UsageError(f"--{name} {value} changes nothing: the recipe {config.recipe} takes no views")
    if config.augment == "none" and config.colours == "ignore":
        raise UsageError("--colours ignore changes nothing beside --augment none, whose views differ in noise alone")
    return config


def _refuse_idle(config: TrainConfig, usual: TrainConfig) -> None:
    """Raise `UsageError` for a setting, other than the recipe's own, that the rest leaves without effect."""
    for name, net, off in (("dropout", "mlp", 0.0), ("tone", "conv", 1.0)):
        value = getattr(config, name)
        if config.net != net and value not in (off, getattr(usual, name)):
            raise UsageError(f"{name} {value} changes nothing without net={net}")


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Settings from a JSON or TOML file, unchecked; raises `DataError` when it cannot be read or parsed."""
    path = Path(path)
    toml = path.suffix.lower() == ".toml"
    try:
        data = path.read_bytes()
        values = msgspec.toml.decode(data) if toml else msgspec.json.decode(data)
    except OSError as error:
        raise DataError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, ValueError) as error:
        expected = "TOML" if toml else "JSON, which is expected of all but .toml files"
        raise DataError(f"{path} is not valid {expected}: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a {type(values).__name__}, expected an object of settings")
    return values


KEYS = tuple(field.encode_name for field in msgspec.structs.fields(TrainConfig))
