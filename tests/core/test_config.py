"""Settings: recipes, overrides, files, and one clear line for every mistake."""

import msgspec
import pytest

from catvae.core.config import KEYS, TrainConfig, read_config_file, resolve
from catvae.core.setting_words import NUMBERS_ON_THE_COMMAND_LINE
from catvae.runtime.errors import DataError, UsageError


def test_recipes_and_overrides():
    assert resolve({}) == TrainConfig()
    paper = resolve({"recipe": "paper"})
    assert (paper.net, paper.delta, paper.lam, paper.batch_size, paper.invariance_weight) == ("mlp", 2, 2.0, 128, 0.0)
    assert resolve({"recipe": "paper", "lambda": 3.0}).lam == 3.0
    assert resolve({"delta": 6}, {"delta": 5, "epochs": 3}).delta == 6
    assert resolve({}, {"recipe": "paper", "epochs": 3}).hidden == 400
    legacy = resolve({"recipe": "paper", "legacy": True})
    assert (legacy.path, legacy.information_weight) == ("soft", 100 / 128)


def test_a_configuration_survives_its_file(tmp_path):
    config = resolve({"recipe": "paper", "clusters": 7})
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(config))
    assert resolve(read_config_file(tmp_path / "c.json")) == config
    (tmp_path / "c.toml").write_text('recipe = "paper"\nclusters = 7\n')
    assert resolve(read_config_file(tmp_path / "c.toml")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch', did you mean 'epochs'"),
        ({"clusters": 0}, "--clusters is 0, expected 1 to"),
        ({"batch_size": 1}, "--batch-size is 1"),
        ({"lambda": -1.0}, "--lambda is -1"),
        ({"lambda": float("nan")}, "--lambda is nan"),
        ({"learning_rate": 0.0}, "--learning-rate is 0"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"net": "transformer"}, "^net is 'transformer', expected conv or mlp$"),
        ({"clusters": "ten"}, "^--clusters is 'ten', expected a whole number or auto$"),
        ({"clusters": 3, "epochs": 1.5}, "^--epochs is 1.5, expected a whole number$"),
        ({"seed": None}, "^--seed is None, expected a whole number$"),
        ({"learning_rate": "fast"}, "^--learning-rate is 'fast', expected a number$"),
        ({"guard": 1}, "^guard is 1, expected true or false$"),
        ({"regroup": [0.5, "x"]}, "^regroup is .*, expected a list of numbers$"),
        ({"legacy": True}, "--legacy belongs to --recipe paper"),
        ({"recipe": "paper", "sizes": "unequal"}, "--sizes unequal needs over-clusters"),
        ({"sizes": "unequal", "invariance_weight": 0.0}, "--sizes unequal needs over-clusters"),
        ({"recipe": "paper", "augment": "objects"}, "--augment objects changes nothing: the recipe paper takes no views"),
        ({"recipe": "paper", "colours": "keep"}, "--colours keep changes nothing: the recipe paper takes no views"),
        ({"augment": "none", "colours": "ignore"}, "--colours ignore changes nothing beside --augment none"),
        ({"colours": "grey"}, "^colours is 'grey', expected keep, vary or ignore$"),
        ({"information_weight": -1.0}, "^information_weight is -1"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        resolve(settings)


def test_a_recipe_is_not_given_beside_a_file_with_the_values_of_another():
    """They would win over those of the recipe, and what is called paper would be none."""
    whole = msgspec.to_builtins(resolve({}))
    for options, message in (
        ({"recipe": "paper"}, "--recipe paper beside"),
        ({"recipe": "paper", "legacy": True}, "beside"),
        ({"legacy": True}, "--legacy beside"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve(options, whole)
    assert resolve({"recipe": "robust", "epochs": 3}, whole) == resolve({"epochs": 3})
    assert resolve({"recipe": "paper"}, {"epochs": 3}).net == "mlp"


@pytest.mark.parametrize(("name", "content"), [("c.json", "{"), ("c.json", "[1]"), ("c.toml", "a = ")])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        read_config_file(tmp_path / name)
    with pytest.raises(DataError, match="cannot read"):
        read_config_file(tmp_path / "none.json")


def test_every_setting_is_explained():
    source = TrainConfig.__module__
    text = __import__(source, fromlist=["x"]).__file__
    with open(text, encoding="utf-8") as file:
        body = file.read().split("class TrainConfig")[1].split("def __post_init__")[0]
    unexplained = {"seed", "device", "epochs", "batch_size"}
    for key in set(KEYS) - unexplained:
        name = "lam" if key == "lambda" else key
        assert f"    {name}: " in body


def test_settings_are_called_as_their_options_are():
    from catvae.core.train_command import train

    options = {option.removeprefix("--").replace("-", "_") for parameter in train.params for option in parameter.opts}
    assert options & set(KEYS) >= NUMBERS_ON_THE_COMMAND_LINE
    numbers = {field.encode_name for field in msgspec.structs.fields(TrainConfig) if isinstance(field.default, (int, float))}
    assert numbers & options - {"legacy"} <= NUMBERS_ON_THE_COMMAND_LINE
