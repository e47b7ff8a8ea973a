"""`ltsam push`, `ltsam card` and `ltsam train --push_to_hub`, and loading in a process that knows only the repository."""

import io
import json
import subprocess
import sys

import pytest
import torch
import yaml
from adapters.tiny import TOWER, with_head
from cli.picture_folders import draw_images
from cli.test_cli import run
from datasets import ClassLabel, DatasetInfo, Features, SplitDict, SplitInfo
from datasets import Image as Image_
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from hub_server import READ_ONLY, TOKEN, Repo
from huggingface_hub import DatasetCardData
from PIL import Image
from runs.hub.digits_run import EVALUATION, SHARPNESS, metrics, with_weights, write, write_seeds
from time_limits import PATIENCE
from transformers import AutoModelForImageClassification, ViTImageProcessor

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification
from hf_ltsam.adapters import make_adapter
from hf_ltsam.cli.train import train
from hf_ltsam.models import ClipForLongTail, ClipForLongTailConfig
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.model import load_run

QUICK = ["--use_cpu=true", "--depth=8", "--learning_rate=0.1", "--per_device_train_batch_size=4", "--num_train_epochs=1",
         "--report_to=none", "--disable_tqdm=true", "--logging_strategy=no"]  # fmt: skip
EEL = ("ant", "bee", "cow", "dog", "eel")
NAMES = dict(enumerate(EEL))


def pushed_without_error(capsys, *words):
    status, out, err = run(capsys, "push", *map(str, words))
    assert status == 0, err
    return out


def test_push_sends_the_run_and_nothing_else(hub, tmp_path, capsys):
    folder = with_weights(write_seeds(tmp_path))
    for name in (
        "training_args.bin",
        "trainer_state.json",
        "notes.txt~",
        ".env",
        "optimizer.pt",
        "events.out.tfevents.1",
    ):
        (folder / name).write_text("secret")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "config.json").write_text("{}")
    out = pushed_without_error(capsys, folder, "me/digits", "--license", "mit", "--private")
    assert f"Published: {hub.endpoint}/me/digits/commit/" in out and hub.repo("me/digits").private
    assert set(hub.files("me/digits")) == {
        "README.md", "class_counts.png", "class_statistics.json", "config.json", "metrics.json", "model.safetensors", "recipe.yaml",
        "other_seeds/seed1/metrics.json", "other_seeds/seed2/metrics.json",
    }  # fmt: skip
    assert hub.files("me/digits")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert not (folder / "README.md").exists() and not (folder / "class_counts.png").exists()


def test_results_of_other_weights_are_left_out(hub, tmp_path, capsys):
    folder = with_weights(write(tmp_path / "run", metrics()))
    for name, file, content in (
        ("evaluation", "ood_results.json", EVALUATION),
        ("sharpness", "sharpness.json", SHARPNESS),
    ):
        (folder / name).mkdir()
        (folder / name / file).write_text(json.dumps(content))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}})
    )
    status, card, remarks = run(capsys, "card", str(folder))  # > README.md takes the card alone
    assert status == 0 and card.startswith("---\n") and "other weights" not in card
    assert remarks.count("is of other weights than the run has now") == 2
    _, _, remarks = run(capsys, "push", str(folder), "me/digits")
    assert remarks.count("is of other weights than the run has now") == 2
    assert "Under shift" not in hub.files("me/digits")["README.md"].decode() and not any(
        "/" in p for p in hub.files("me/digits")
    )
    from hf_ltsam.cli.train.saved_run import load_run
    from hf_ltsam.runs.identity import fingerprint
    from hf_ltsam.runs.shift.checkpoint import load_checkpoint

    config = json.loads((folder / "config.json").read_text())  # an evaluation of an older version
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    right = {
        **EVALUATION,
        "checkpoint": {**EVALUATION["checkpoint"], "fingerprint": load_checkpoint(str(folder)).fingerprint},
    }
    (folder / "evaluation" / "ood_results.json").write_text(json.dumps(right))
    (folder / "sharpness" / "sharpness.json").write_text(
        json.dumps({**SHARPNESS, "weights_sha256": fingerprint(load_run(folder))})
    )
    (folder / "sharpness" / "spectrum.png").write_bytes(b"\x89PNG")
    status, out, remarks = run(capsys, "push", str(folder), "me/digits")
    assert status == 0 and "other weights" not in out + remarks
    files = hub.files("me/digits")
    assert {"evaluation/ood_results.json", "sharpness/sharpness.json", "sharpness/spectrum.png"} <= set(files)
    assert "## Under shift" in files["README.md"].decode() and "## Curvature" in files["README.md"].decode()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "me/x"], "nowhere: there is no such folder"),
        (["empty", "me/x"], "empty has no weights (model.safetensors)"),
        (["pickled", "me/x"], "has its weights in pytorch_model.bin, a pickle"),
        (["run", "x"], "'x' is no repository on the Hub: names there have the form OWNER/NAME"),
        (["run", "me/x y"], "Repo id must"),
    ],
)
def test_refusals_before_anything_is_sent(hub, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with_weights(write(tmp_path / "run", metrics()))
    write(tmp_path / "pickled", metrics())
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    status, _, err = run(capsys, "push", *words)
    assert status == 2 and message in err and "Traceback" not in err and not hub.requests


DIGITS = tuple(map(str, range(10)))


def benchmark(hub, names=DIGITS, train=353, test=500):
    """A long-tailed data set as `ltsam data push` describes one: its default configuration r100, and r10 with more images."""
    header = DatasetCardData()
    described = {}
    for name, images in (("r100", train), ("r10", 2 * train)):
        splits = SplitDict({s: SplitInfo(s, 1, n) for s, n in (("train", images), ("test", test))})
        features = Features({"img": Image_(), "label": ClassLabel(names=list(names))})
        described[name] = DatasetInfo(config_name=name, features=features, splits=splits)
    DatasetInfosDict(described).to_dataset_card_data(header)
    files = {name: {"data_files": f"{name}/*", **({"default": True} if name == "r100" else {})} for name in described}
    MetadataConfigs(files).to_dataset_card_data(header)
    hub.repos["dataset", "me/lt"] = Repo("dataset", "me/lt")
    hub.repo("me/lt", "dataset").commit("first", {"README.md": f"---\n{header.to_yaml()}\n---\n".encode()})


def entries_of(hub):
    content = hub.files("me/x").get(".eval_results/results.yaml")
    return content and {entry["dataset"]["task_id"] for entry in yaml.safe_load(content)}


@pytest.mark.parametrize(
    ("stated", "data", "changes"),
    [
        ("me/lt", {}, {}),
        ("me/lt:r100", {}, {"names": [name.upper() for name in reversed(DIGITS)]}),
        ("me/lt:r100", {"reserve": 0.2}, {"train": 441}),
    ],
)
def test_results_enter_the_leaderboard_of_their_data(hub, tmp_path, capsys, stated, data, changes):
    benchmark(hub, **changes)
    folder = with_weights(write(tmp_path / "run", metrics(data={**metrics()["data"], **data})))
    pushed_without_error(capsys, folder, "me/x", "--benchmark", stated)
    assert ("r100_accuracy" if ":" in stated else "accuracy") in entries_of(hub)


@pytest.mark.parametrize(
    ("stated", "changes", "message"),
    [
        ("me/lt", {"names": EEL}, "me/lt has 5 classes ('ant', 'bee', 'cow', ...) and the run 10 ('0', '1', '2', ...)"),
        (
            "me/lt",
            {"names": ["9 lives", *DIGITS[1:]]},
            "me/lt has 10 classes ('9 lives', '1', '2', ...) and the run 10",
        ),
        ("me/lt", {"test": 400}, "me/lt has 400 test images, the run was tested on 500"),
        ("me/lt", {"train": 400}, "me/lt has 400 training images, the run was trained on 353"),
        ("me/lt:r10", {}, "me/lt:r10 has 706 training images, the run was trained on 353"),
        ("me/lt:r1", {}, "--benchmark me/lt:r1: me/lt has no configuration 'r1'. Did you mean 'r10' or 'r100'?"),
        ("me/lt", {"names": None}, "the card of me/lt does not say which classes and splits it has"),
        ("me/nowhere", {}, "--benchmark me/nowhere cannot be compared with the run: the Hub answers 404"),
        ("nowhere", {}, "'nowhere' is no repository on the Hub"),
    ],
)
def test_results_of_other_data_do_not_enter_a_leaderboard(hub, tmp_path, capsys, stated, changes, message):
    if changes.get("names", ()) is None:
        hub.repos["dataset", "me/lt"] = Repo("dataset", "me/lt")
        hub.repo("me/lt", "dataset").commit("first", {"README.md": b"# A data set"})
    else:
        benchmark(hub, **changes)
    status, _, err = run(
        capsys, "push", str(with_weights(write(tmp_path / "run", metrics()))), "me/x", "--benchmark", stated
    )
    assert status == 2 and message in err and ("model", "me/x") not in hub.repos


def test_a_reserve_does_not_explain_another_draw(hub, tmp_path, capsys):
    benchmark(hub, train=441)
    folder = with_weights(write(tmp_path / "run", metrics(data={**metrics()["data"], "reserve": 0.2})))
    status, _, err = run(capsys, "push", str(folder), "me/x", "--benchmark", "me/lt:r10")
    assert status == 2 and "me/lt:r10 has 882 training images, the run was trained on 353" in err


def test_a_checkpoint_has_no_results_for_a_leaderboard(hub, tmp_path, capsys):
    benchmark(hub)
    folder = with_weights(write(tmp_path / "run", metrics()))
    (folder / "metrics.json").unlink()
    status, _, err = run(capsys, "push", str(folder), "me/x", "--benchmark", "me/lt")
    assert status == 2 and "has no results, which --benchmark me/lt would enter" in err


def test_a_token_that_may_not_write(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    status, _, err = run(capsys, "push", str(with_weights(write(tmp_path / "run", metrics()))), "me/x")
    assert status == 2 and "me/x was not uploaded: the Hub answers 403" in err and READ_ONLY not in err


def test_offline(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for words in (
        ["push", "anything", "me/x"],
        ["data", "push", "cifar10_lt", "me/x"],
        ["train", "--push_to_hub", "true", "--dataset", "x"],
    ):
        status, _, err = run(capsys, *words)
        assert status == 2 and "HF_HUB_OFFLINE=1 forbids the network" in err
    status, out, _ = run(capsys, "card", str(with_weights(write(tmp_path / "run", metrics()))), "--repo", "me/digits")
    assert status == 0 and "# digits" in out and 'from_pretrained("me/digits")' in out


def test_a_token_that_the_hub_does_not_know_is_refused_before_data_and_model(hub, capsys, tmp_path):
    status, _, err = run(
        capsys, "train", "--dataset", str(tmp_path / "nowhere"), "--push_to_hub=true", "--hub_token=hf_unknown"
    )
    assert status == 2 and "--push_to_hub cannot work: the Hub answers 401" in err and "hf_unknown" not in err


def test_train_and_publish(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    draw_images(tmp_path / "images" / "train", (12, 6, 3), 12)
    draw_images(tmp_path / "images" / "test", (4, 4, 4), 12, seed=1)
    out = tmp_path / "run"
    words = [
        "--dataset",
        str(tmp_path / "images"),
        "--output_dir",
        str(out),
        *QUICK,
        "--save_strategy=no",
        "--push_to_hub=true",
    ]
    train.main([*words, "--hub_model_id", "me/owls", "--hub_token", TOKEN])
    shown = "".join(capsys.readouterr())
    files = hub.files("me/owls")
    assert {
        "model.safetensors",
        "preprocessor_config.json",
        "metrics.json",
        "recipe.yaml",
        "README.md",
        "class_counts.png",
    } <= set(files)
    assert hub.messages == ["End of training"] and "Published: " in shown
    assert files["metrics.json"] == (out / "metrics.json").read_bytes()
    record = RunFolder(out).finished_record()
    assert f"{100 * record.results['test']['overall']:.1f}" in files["README.md"].decode()
    assert "hub_token" not in record.command and "--hub_model_id me/owls" in record.command
    assert "hub_token" not in yaml.safe_load((out / "recipe.yaml").read_text())
    assert TOKEN not in shown
    for content in [*files.values(), *(f.read_bytes() for f in out.rglob("*") if f.is_file())]:
        assert TOKEN.encode() not in content


def test_a_failing_hub_costs_no_result(hub, tmp_path, capsys):
    draw_images(tmp_path / "images" / "train", (12, 6, 3), 12)
    draw_images(tmp_path / "images" / "test", (4, 4, 4), 12, seed=1)
    out = tmp_path / "run"
    hub.fail("/commit/", 500, times=99)
    words = [
        "--dataset",
        str(tmp_path / "images"),
        "--output_dir",
        str(out),
        *QUICK,
        "--save_strategy=epoch",
        "--push_to_hub=true",
    ]
    with pytest.raises(SystemExit) as exit_:
        train.main([*words, "--hub_model_id=me/owls"])
    shown, err = capsys.readouterr()
    assert exit_.value.code == 2 and "overall" in shown and f"`ltsam push {out} me/owls` tries again" in err
    assert (
        RunFolder(out).finished_record().results
        and (out / "model.safetensors").is_file()
        and list(out.glob("checkpoint-*"))
    )
    hub.faults.clear()
    pushed_without_error(capsys, out, "me/owls")


LOADING = """
import json, sys
import torch
from PIL import Image
from huggingface_hub import hf_hub_download
from transformers import AutoConfig, AutoModelForImageClassification
image = Image.open(sys.argv[1])
pixels = torch.load(sys.argv[2], weights_only=True)
found = {}

def run_card(repo):
    text = open(hf_hub_download(repo, "README.md")).read()
    code = text.partition("```python\\n")[2].partition("```")[0]
    names = {}
    exec(code, names)
    return code, names

code, names = run_card("me/vit")        # before hf_ltsam is known
assert "hf_ltsam" not in code and "hf_ltsam" not in sys.modules
found["vit"] = [answer["label"] for answer in names["classify"](image, top_k=5)]
for repo in ("me/resnet", "me/clip"):
    try:
        AutoModelForImageClassification.from_pretrained(repo)
    except ValueError as error:
        found[f"{repo} without"] = str(error).splitlines()[0]
from peft import PeftModel
base = AutoModelForImageClassification.from_pretrained("me/vit")
try:
    PeftModel.from_pretrained(base, "me/adapter")
except KeyError as error:
    found["me/adapter without"] = str(error)
assert "hf_ltsam" not in sys.modules
for repo in ("resnet", "clip", "adapter"):
    code, names = run_card(f"me/{repo}")
    found[repo] = [answer["label"] for answer in names["classify"](image, top_k=5)]
code, names = run_card("me/grey")
found["grey"] = list(names["model"].config.id2label.values())
with torch.no_grad():
    for repo in ("resnet", "clip", "vit"):
        found[f"{repo} logits"] = AutoModelForImageClassification.from_pretrained(f"me/{repo}").eval()(pixels).logits.tolist()
    base = AutoModelForImageClassification.from_pretrained("me/vit")
    found["adapter logits"] = PeftModel.from_pretrained(base, "me/adapter").eval()(pixels).logits.tolist()
    from hf_ltsam.runs.model import load_run
    found["load_run logits"] = load_run("me/adapter")(pixels).logits.tolist()
from hf_ltsam import ClassStatistics
found["counts"] = ClassStatistics.load(hf_hub_download("me/resnet", "class_statistics.json")).counts
print(json.dumps(found))
"""


@pytest.mark.slow
def test_loading_in_a_fresh_process(hub, tmp_path, capsys):
    """AutoModel, PeftModel, pipeline: with class names, from the lines of the card, and what is said without the import."""
    torch.manual_seed(0)
    resnet = CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=2, id2label=NAMES)).eval()
    vit = with_head("vit")
    clip = ClipForLongTail(
        ClipForLongTailConfig(vision_config={"model_type": "clip_vision_model", **TOWER}, num_labels=5)
    ).eval()
    for model in (vit, clip):
        model.config.id2label, model.config.label2id = NAMES, {name: c for c, name in NAMES.items()}
    folders = {name: tmp_path / name for name in ("resnet", "vit", "clip", "adapter")}
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    statistics = {"class_statistics": {"counts": [9, 7, 5, 3, 1]}, "data": {"dataset": "animals"}}
    pixels = torch.randn(2, 3, 8, 8)
    logits = {}
    with torch.no_grad():
        for name, model in (("resnet", resnet), ("vit", vit), ("clip", clip)):
            write(folders[name], metrics(**statistics))
            model.save_pretrained(folders[name])
            logits[name] = model(pixels).logits
    write(folders["adapter"], metrics(**statistics))
    vit.config.save_pretrained(folders["adapter"])
    for folder in folders.values():
        (folder / "class_statistics.json").write_text(json.dumps(statistics["class_statistics"]))
        processor.save_pretrained(folder)
    trained = make_adapter(
        AutoModelForImageClassification.from_pretrained(folders["vit"]), "adaptformer", num_classes=5
    ).eval()
    trained.peft_config["default"].base_model_name_or_path = "me/vit"
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
        logits["adapter"] = logits["load_run"] = trained(pixels).logits
    trained.save_pretrained(folders["adapter"])
    for name, folder in folders.items():
        pushed_without_error(capsys, folder, f"me/{name}")
    pushed_without_error(capsys, with_weights(write(tmp_path / "grey", metrics())), "me/grey")

    Image.new("RGB", (10, 9), (200, 20, 20)).save(tmp_path / "image.png")
    torch.save(pixels, tmp_path / "pixels.pt")
    words = [sys.executable, "-c", LOADING, str(tmp_path / "image.png"), str(tmp_path / "pixels.pt")]
    done = subprocess.run(
        words, capture_output=True, text=True, env=hub.environment(tmp_path), timeout=PATIENCE, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("resnet", "vit", "clip", "adapter"):
        assert sorted(found[name]) == sorted(NAMES.values()), name
    assert found["grey"] == [str(c) for c in range(10)] and found["counts"] == [9, 7, 5, 3, 1]
    for name, expected in logits.items():
        assert torch.allclose(torch.tensor(found[f"{name} logits"]), expected, atol=1e-6), name
    assert (
        "`hf_ltsam_cifar_resnet`" in found["me/resnet without"]
        and "`hf_ltsam_clip_long_tail`" in found["me/clip without"]
    )
    assert "HF_LTSAM_ADAPTFORMER" in found["me/adapter without"]
    card = hub.files("me/adapter")["README.md"].decode()
    assert (
        "base_model: me/vit" in card
        and "library_name: hf_ltsam" in card
        and "An adapter for an image classifier" in card
    )
    assert "library_name: transformers" in hub.files("me/vit")["README.md"].decode()


@pytest.mark.slow
def test_a_pickle_from_the_hub_runs_no_code(hub, tmp_path, monkeypatch):
    """Whoever puts a pickle that runs code beside a configuration gets nowhere with it."""
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    CifarResNetConfig(depth=8, id2label=NAMES).save_pretrained(tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    stranger = {**config, "auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}}
    evil = {"pytorch_model.bin": pickle.dumps(Evil()), "evil.py": f"open({str(tmp_path / 'run')!r}, 'w')".encode()}
    for name, values in (("me/pickle", config), ("me/remote", {**stranger, "model_type": "unknown"})):
        hub.repos["model", name] = Repo("model", name)
        hub.repo(name).commit("evil", {"config.json": json.dumps(values).encode(), **evil})
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    for name, refusal in (("me/pickle", pickle.UnpicklingError), ("me/remote", ValueError)):
        with pytest.raises(refusal):
            load_run(name)
    assert not (tmp_path / "run").exists()
