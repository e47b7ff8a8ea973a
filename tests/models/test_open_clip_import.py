"""open_clip's models as transformers': the same numbers, offline, or a clear refusal."""

import json
import pickle

import pytest
import torch
from models.clips import NAMES, architecture, open_clip_checkpoint

from hf_ltsam.models.clip_source import load_clip
from hf_ltsam.models.open_clip_import import clip_config, clip_state_dict, to_transformers

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

TEXTS = ["a photo of a cat.", "a sketch of the great white shark, seen from below", "x"]


def images(size, n=3):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(3))


def same_numbers(theirs, ours, tokens, size, n=3):
    """Logits of images and texts, and both kinds of features, by the two libraries."""
    with torch.no_grad():
        image, text, scale = theirs(images(size, n), tokens)
        outputs = ours.eval()(pixel_values=images(size, n), input_ids=tokens)
    torch.testing.assert_close(outputs.logits_per_image, scale * image @ text.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.image_embeds, image, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.text_embeds, text, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("patch", [4, 8])
@pytest.mark.parametrize("custom_text", [False, True])
def test_equal_logits_and_features(tmp_path, quick_gelu, patch, custom_text):
    config = {**architecture(quick_gelu, patch), "custom_text": custom_text}
    theirs, name = open_clip_checkpoint(tmp_path, f"tiny-{patch}-{quick_gelu}-{custom_text}", config)
    source = load_clip(name)
    tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    same_numbers(theirs, source.text.clip, tokens, 16)
    with torch.no_grad():
        expected = theirs.encode_text(tokens, normalize=True)
    torch.testing.assert_close(source.text.features(TEXTS), expected, rtol=0, atol=1e-5)  # by its own tokenizer
    assert source.vision_model.config.hidden_act == ("quick_gelu" if quick_gelu else "gelu")
    assert source.vision_model.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14"])
def test_equal_logits_at_real_widths(name):
    """Two layers of each tower: all of them take gigabytes and show nothing more."""
    config = open_clip.get_model_config(name)
    for tower in ("vision_cfg", "text_cfg"):
        config[tower]["layers"] = 2
    torch.manual_seed(0)
    theirs = open_clip.CLIP(**config).eval()
    ours = to_transformers(theirs, clip_config(config))
    same_numbers(theirs, ours, open_clip.get_tokenizer(name)(TEXTS[:1]), 224, n=1)


def test_every_weight_has_a_place_and_no_place_stays_empty(tmp_path):
    theirs, _ = open_clip_checkpoint(tmp_path, "tiny-places", architecture())
    ours = transformers.CLIPModel(clip_config(architecture()))
    state = clip_state_dict(theirs.state_dict())
    assert state.keys() == ours.state_dict().keys()
    assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in theirs.parameters())


def test_half_precision_checkpoints_become_float32(tmp_path):
    model, name = open_clip_checkpoint(tmp_path, "tiny-half", architecture())
    torch.save({k: v.half() for k, v in model.state_dict().items()}, name.partition("/")[2])
    assert load_clip(name).vision_model.dtype == torch.float32


def test_a_checkpoint_of_open_clips_own_training_and_safetensors(tmp_path):
    from safetensors.torch import save_file

    model, name = open_clip_checkpoint(tmp_path, "tiny-epoch", architecture())
    expected = load_clip(name).vision_model.state_dict()
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "epoch_3.pt")
    save_file(dict(model.state_dict()), tmp_path / "weights.safetensors")
    for file in ("epoch_3.pt", "weights.safetensors"):
        got = load_clip(f"open_clip:tiny-epoch/{tmp_path / file}").vision_model.state_dict()
        assert all(torch.equal(got[k], v) for k, v in expected.items())


def test_a_local_folder_in_the_hubs_layout(tmp_path):
    from safetensors.torch import save_file

    model, name = open_clip_checkpoint(tmp_path, "tiny-folder", architecture(quick_gelu=True))
    folder = tmp_path / "folder"
    folder.mkdir()
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture(True), "preprocess_cfg": pixels})
    )
    save_file(dict(model.state_dict()), folder / "open_clip_model.safetensors")
    expected = load_clip(name)
    for prefix in ("local-dir:", "open_clip:local-dir:"):
        source = load_clip(f"{prefix}{folder}")
        assert (source.image_mean, source.image_std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
        torch.testing.assert_close(source.text.features(NAMES), expected.text.features(NAMES), rtol=0, atol=0)


def test_published_weights_know_their_activation(tmp_path, monkeypatch):
    """OpenAI's weights under the name without -quickgelu: open_clip warns and continues with the wrong one."""
    _, name = open_clip_checkpoint(tmp_path, "tiny-tag", architecture(quick_gelu=False))
    real = open_clip.create_model
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _: ["openai"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"quick_gelu": True})
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: real("tiny-tag", pretrained=name.partition("/")[2]))
    assert load_clip("open_clip:tiny-tag/openai").vision_model.config.hidden_act == "quick_gelu"
    assert open_clip.pretrained._PRETRAINED["ViT-B-16"]["openai"]["quick_gelu"]  # in open_clip's own table


@pytest.mark.parametrize(
    "name, parts",
    [
        ("open_clip:ViT-B-61/openai", ["'ViT-B-61'", "'ViT-B-16'"]),
        ("open_clip:ViT-B-16/openia", ["'openia'", "openai", "laion2b_s34b_b88k"]),
        ("open_clip:ViT-B-16", ["ViT-B-16", "openai"]),
        ("open_clip:RN50/openai", ["vision_cfg.layers"]),
        ("open_clip:EVA02-B-16/merged2b_s8b_b131k", ["timm_model_name", "ViT-B-16"]),
        ("open_clip:coca_ViT-B-32/laion2b_s13b_b90k", ["multimodal_cfg"]),
        ("open_clip:ViT-L-14-CLIPA/datacomp1b", ["pool_type"]),
    ],
)
def test_refused_with_the_way_out(name, parts):
    with pytest.raises(ValueError) as error:
        load_clip(name)
    assert name in str(error.value) and all(part in str(error.value) for part in parts), error.value


def test_missing_folders_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        load_clip(f"local-dir:{tmp_path}")
    _, name = open_clip_checkpoint(tmp_path, "tiny-other", architecture())
    (tmp_path / "wide.json").write_text(json.dumps(architecture(width=64)))
    open_clip.add_model_config(tmp_path / "wide.json")
    with pytest.raises(ValueError, match="size mismatch"):
        load_clip(f"open_clip:wide/{name.partition('/')[2]}")


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code in a checkpoint was run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    open_clip_checkpoint(tmp_path, "tiny-harm", architecture())
    torch.save({"state_dict": {}, "harm": Harmful()}, tmp_path / "harm.pt")
    with pytest.raises(ValueError, match="more than tensors"):
        load_clip(f"open_clip:tiny-harm/{tmp_path / 'harm.pt'}")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="tiny-harm"):
        load_clip(f"open_clip:tiny-harm/{tmp_path / 'plain.pt'}")


@pytest.mark.parametrize(
    "sibling, name, said",
    [
        (True, "plain", True),  # nothing says which activation the file was trained with
        (True, "quick", False),  # stated by the name
        (False, "plain", False),  # there is no other one
    ],
)
def test_a_file_under_a_plain_name_may_have_another_activation(sibling, name, said, tmp_path, recwarn):
    names = {"plain": f"tiny-act-{sibling}", "quick": f"tiny-act-{sibling}-quickgelu"}
    _, plain = open_clip_checkpoint(tmp_path, names["plain"], architecture())
    if sibling:
        open_clip_checkpoint(tmp_path, names["quick"], architecture(quick_gelu=True))
    file = plain.partition("/")[2]
    load_clip(f"open_clip:{names[name]}/{file}")
    warned = [str(w.message) for w in recwarn if "QuickGELU" in str(w.message)]
    assert len(warned) == said and all(f"open_clip:{names['quick']}/{file}" in text for text in warned)
