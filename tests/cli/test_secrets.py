"""Secrets stand in no file, log or message, however they were spelled and whatever way they came in."""

import json
import logging
import pickle
import warnings

import pytest
import yaml
from cli.test_cli import run
from hub_server import TOKEN
from runs.hub.digits_run import metrics, with_weights, write

from hf_ltsam import LTSamConfig
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.train.arguments import make_run, parse
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.runs.files import read_json, write_json, write_whole
from hf_ltsam.runs.secrets import MASK, without_secrets

SECRET = "pl4nted-S3cret.42+x"
NAMES = (
    "hub_token",
    "hub-token",
    "token",
    "api_key",
    "apiKey",
    "password",
    "WANDB_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "client-secret",
)
SPELLINGS = (
    *("--{name} {secret}", "--{name}={secret}", "--{name} '{secret}'", "--{name}='{secret}' --seed 1"),
    *('{{"{name}": "{secret}"}}', "{{'{name}': '{secret}'}}", '{{\\"{name}\\": \\"{secret}\\"}}', "run --x '{{\"{name}\":\"{secret}\"}}'"),
    *("{name}: {secret}", "{name}: '{secret}'", "a: 1\n  - {name}: {secret}\nb: 2", "{name}={secret}", "f({name}='{secret}', n=1)"),
)  # fmt: skip
WHEREVER = (
    "https://me:{secret}@host/data", "s3://{secret}@host", "--dataset=hf://me:{secret}@x", TOKEN, f"x={TOKEN};", f"{TOKEN}/y",
    "https://cdn.example/x?X-Amz-Signature={secret}&b=1", "https://a.b/c?sv=1&sig={secret}", "https://a.b/c?token={secret}",
    "ghp_" + "a1" * 18, "wandb_v1_" + "a1" * 18,
)  # fmt: skip
HARMLESS = (
    "the token may not write there", "hf_ltsam and hf_ltsam_cifar_resnet", "average_tokens_across_devices: true", "hub_token: null",
    '"mask_token": "[MASK]"', "cls_token=8", "https://openreview.net/forum?id=6Tm1mposlrM", "me@example.org", "use_auth_token=True",
    "--push_to_hub true --seed 1", "secrets stand in no file", "vit.embeddings.cls_token: (1, 1, 768)", "key: value", "--hub_token would be seen in lists of processes", '{"token": 3}',
    "class_token: cls", '{"audio_token": "<|audio|>"}', '{"x_token": "[X]"}', "HF_TOKEN=... ltsam push", "--hub_token=<TOKEN>", "{'password': '0.53'}",
    "- secret: 3", "https://openreview.net/forum?id=6sigKEYx", "https://x.org/?page=2&keyword=owl", "https://x.org/?author=me",
    "git+ssh://git@github.com/a/b", "models/hf_classificationmodels", "data/token_set/secret", "max_tokens=5", "token_type_ids", "class password",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_a_name_says_is_a_secret(spelling, name):
    text = spelling.format(name=name, secret=SECRET)
    cleaned = without_secrets(text)
    assert SECRET not in cleaned and MASK in cleaned and without_secrets(cleaned) == cleaned
    assert cleaned == text.replace(SECRET, MASK), "nothing else is taken out"


@pytest.mark.parametrize("spelling", WHEREVER)
def test_what_looks_like_a_secret(spelling):
    cleaned = without_secrets(spelling.format(secret=SECRET))
    assert SECRET not in cleaned and spelling not in cleaned and without_secrets(cleaned) == cleaned


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "COMET_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MY_SECRET", "PGPASSWORD"]
)
def test_values_of_the_environment(monkeypatch, name, tmp_path):
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TOKEN_FILE", "runs/mine")
    monkeypatch.setenv("OTHER_TOKEN", str(tmp_path))
    assert without_secrets(f"a{SECRET}b runs/mine {tmp_path}") == f"a{MASK}b runs/mine {tmp_path}"
    assert without_secrets({SECRET: [SECRET, 1, None, (SECRET, 2.5)]}) == {MASK: [MASK, 1, None, (MASK, 2.5)]}


def test_containers():
    values = {
        "hub_token": SECRET,
        "args": {"api_key": SECRET, "n": 3},
        "words": ["--hub-token", SECRET, "--seed", "1"],
        "token": True,
    }
    assert without_secrets(values) == {
        "hub_token": MASK, "args": {"api_key": MASK, "n": 3}, "words": ["--hub-token", MASK, "--seed", "1"], "token": True,
    }  # fmt: skip


def test_files_are_written_and_read_without(tmp_path):
    values = {"command": f"ltsam train --hub-token {SECRET}", "args": {"password": SECRET}}
    write_json(tmp_path / "a.json", values)
    (tmp_path / "b.json").write_text(json.dumps(values))  # of a release that wrote it
    (tmp_path / "c.md").write_bytes(write_whole(tmp_path / "c.md", f"--hub_token={SECRET}").read_bytes())
    assert SECRET not in "".join(f.read_text() for f in (tmp_path / "a.json", tmp_path / "c.md"))
    assert read_json(tmp_path / "a.json") == read_json(tmp_path / "b.json")
    assert read_json(tmp_path / "b.json") == {"command": f"ltsam train --hub-token {MASK}", "args": {"password": MASK}}


QUOTED = (
    'token="{}"',
    '--hub_token="{}"',
    '--hub_token "{}"',
    'see "https://a.b/c?sig={}"',
    '{{"token": "{}"}}',
    "password={}\\",
    "--api_key=",
)


@pytest.mark.parametrize("place", ["value", "word", "key", "nested"])
@pytest.mark.parametrize("text", QUOTED)
def test_json_stays_json(tmp_path, text, place):
    """Also where a secret stands in quotes, which JSON escapes."""
    from hf_ltsam.runs.hub import upload

    text = text.format(SECRET)
    values = {"value": {"a": text}, "word": [text, "b"], "key": {text: 1}, "nested": {"a": json.dumps({"b": text})}}[
        place
    ]
    written = write_json(tmp_path / "a.json", values)
    assert json.loads(written.read_text()) == read_json(written) == without_secrets(values)
    written.write_text(json.dumps(values))  # by somebody else
    sent = upload._publishable("a.json", written)
    content = sent if isinstance(sent, bytes) else sent.read_bytes()
    assert json.loads(content) == read_json(written) == without_secrets(values) and SECRET.encode() not in content


NESTED = ("adapter_args", "loss_args", "lr_scheduler_kwargs", "gradient_checkpointing_kwargs")


@pytest.mark.parametrize("setting", NESTED)
def test_nested_arguments(tmp_path, setting, monkeypatch):
    words = [
        "--output_dir",
        str(tmp_path),
        f"--{setting}",
        json.dumps({"url": f"https://me:{SECRET}@x", "api_key": SECRET}),
    ]
    for made in (parse(words), make_run({"output_dir": str(tmp_path), setting: {"api_key": SECRET}})):
        shown = json.dumps([made.command, made.settings, made.words])
        assert SECRET not in shown and MASK in shown
        value = getattr(made.config, setting, None) or made.model.adapter_args
        assert value["api_key"] == SECRET, "the training has it"
        pickled = pickle.dumps(made.config)
        assert SECRET.encode() not in pickled and SECRET not in made.config.to_json_string()
        assert pickle.loads(pickled).output_dir == str(tmp_path)


def test_what_is_logged_and_what_is_raised(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    logger, handler = logging.getLogger("hf_ltsam.test"), logging.StreamHandler()
    logger.addHandler(handler)
    with pytest.raises(SystemExit), user_errors():
        logger.warning("cannot log in with %s", SECRET)
        print(warnings.formatwarning(f"no data at s3://{SECRET}@x", UserWarning, "file.py", 1))
        raise ValueError(f"--hub_token {SECRET} is no option")
    monkeypatch.setenv("LTSAM_TRACEBACK", "1")
    with pytest.raises(ValueError) as raised, user_errors():
        raise ValueError(f"no such place: https://me:{SECRET}@x")
    import sys

    sys.excepthook(raised.type, raised.value, raised.tb)
    logger.removeHandler(handler)
    shown = "".join(capsys.readouterr())
    assert SECRET not in shown and shown.count(MASK) >= 4 and "Traceback" in shown


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Secrets in the environment, in a recipe, in nested arguments and in addresses."""
    monkeypatch.setenv("WANDB_API_KEY", f"env-{SECRET}")
    recipe = tmp_path / "mine.yaml"
    settings = {
        "hub_token": TOKEN,
        "lr_scheduler_kwargs": {"api_key": SECRET},
        "run_name": f"https://me:{SECRET}@x/y",
        "seed": 1,
    }
    recipe.write_text(yaml.safe_dump(settings))
    return recipe


def test_no_output_of_any_command_has_one(planted, images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_ltsam.cli.train.train.LTSamTrainer.create_scheduler", _without_kwargs)
    quick = [
        "--use_cpu=true",
        "--depth=8",
        "--learning-rate=0.1",
        "--per-device-train-batch-size=6",
        "--report_to=none",
    ]
    out = [run(capsys, "recipes", str(planted)), run(capsys, "recipes", str(planted), "--json")]
    words = [
        "--config",
        str(planted),
        "--dataset",
        str(images),
        "--num-train-epochs",
        "1",
        "--project",
        f"env-{SECRET}",
        *quick,
    ]
    out += [run(capsys, "train", *words, "--output-dir", "run/seed1", "--hub-token", TOKEN, "--save-strategy=epoch")]
    stage = [
        "--second-stage",
        "tau_norm",
        "--second-stage-args",
        '{"tau": 1}',
        "--use_cpu",
        "true",
        f"--hub-token={TOKEN}",
    ]
    out += [run(capsys, "decouple", "run/seed1", *stage, "--output-dir", "second")]
    out += [run(capsys, "evaluate", "--model", "run/seed1", "--sets", str(images / "test"))]
    out += [run(capsys, "sharpness", "run/seed1", "--classes", "owl", "--lanczos-steps", "2", "--probes", "1")]
    out += [
        run(capsys, "report", "run", "second"),
        run(capsys, "card", "run/seed1"),
        run(capsys, "export", "run/seed1", "plain"),
    ]
    out += [
        run(capsys, "train", *words, "--output-dir", "run/seed1", f"--hub-token={TOKEN}")
    ]  # refused: a run is there
    out += [run(capsys, "train", "--dataset", f"https://me:{SECRET}@x/y", "--output-dir", "no")]
    assert [status for status, _, _ in out] == [0] * 9 + [2, 2], [err for _, _, err in out]
    written = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f != planted}
    assert {"training_args.bin", "recipe.yaml", "metrics.json", "report.html", "ood_results.json"} <= {
        f.name for f in written
    }
    shown = {f"command {k}": "".join(texts).encode() for k, (_, *texts) in enumerate(out)}
    leaks = [
        str(place)
        for place, content in (written | shown).items()
        if SECRET.encode() in content or TOKEN.encode() in content
    ]
    assert leaks == []


def _without_kwargs(self, num_training_steps, optimizer=None):
    """The schedule of a training whose recipe has a secret in its arguments, which no schedule takes."""
    from transformers import Trainer

    kept, self.args.lr_scheduler_kwargs = self.args.lr_scheduler_kwargs, {}
    try:
        return Trainer.create_scheduler(self, num_training_steps, optimizer)
    finally:
        self.args.lr_scheduler_kwargs = kept


OPTIONS = {
    "train": ["--output-dir", "--resume-from-checkpoint", "--hub-token", "--method-args"], "decouple": ["--second-stage", "--output-dir"],
    "evaluate": ["--test-time", "--output-dir"], "sharpness": ["--max-samples"], "reproduce": ["--output-dir"], "data": [],
}  # fmt: skip


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_is_known_with_hyphens(capsys, command):
    """By the options that the command itself lists."""
    import re

    everything = ["all"] * (command in ("train", "decouple"))
    listed = set(re.findall(r"(?<![\w-])--\w*_\w+", run(capsys, command, "--help", *everything)[1]))
    assert {option.replace("_", "-")[2:] for option in listed} >= {o[2:] for o in OPTIONS[command]}
    for option in sorted(listed)[:: 1 if len(listed) < 40 else 7]:
        _, _, err = run(capsys, command, f"--{option[2:].replace('_', '-')}")
        assert "nrecognized" not in err and "Unknown option" not in err, option


def test_an_upload_is_cleaned_whoever_wrote_it(tmp_path, monkeypatch):
    from hf_ltsam.runs.hub import upload

    folder = with_weights(write(tmp_path / "run", metrics(command=f"ltsam train --hub-token {TOKEN}")))
    sent = {f.name: upload._publishable(f.name, f) for f in folder.iterdir()}
    assert TOKEN in (folder / "metrics.json").read_text()
    assert isinstance(sent["metrics.json"], bytes) and TOKEN.encode() not in sent["metrics.json"]
    assert sent["model.safetensors"] == folder / "model.safetensors" and sent["config.json"] == folder / "config.json"


def test_copies_of_a_config(tmp_path):
    config = LTSamConfig(str(tmp_path), hub_token=TOKEN, use_cpu=True)
    assert cli.COMMANDS and config.hub_token == TOKEN and TOKEN.encode() not in pickle.dumps(config)
