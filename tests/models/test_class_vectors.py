"""Initial class vectors: from class names, from images, or random."""

import json
import math
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models.clips import NAMES, Images, architecture, open_clip_checkpoint, transformers_clip
from torch import nn
from transformers import BertConfig, CLIPImageProcessor

from hf_ltsam.models import ClipForLongTail
from hf_ltsam.models.class_vectors import class_means, linear_probe, nearest_mean, start_from_images
from hf_ltsam.models.clip_templates import CLIP80, ONE, templates_named
from hf_ltsam.models.clip_towers import TextTower
from hf_ltsam.models.frozen_features import first_of_every_class, frozen_features


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return transformers_clip(folder), str(folder)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    return transformers_clip(folder, "siglip"), str(folder)


def images(n=4):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def tokens_of(folder, texts, length):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")["input_ids"]


def test_class_vectors_from_text_as_lift_defines_them(clip):
    """Unit text features (K, d) times the visual projection (d, D), normalised again."""
    whole, folder = clip
    model = ClipForLongTail.from_clip(folder, NAMES, progress=False)
    texts = [
        "a photo of a tench.",
        "a photo of a great white shark.",
        "a photo of a tiger shark.",
        "a photo of a hen.",
        "a photo of a ostrich.",
    ]
    with torch.no_grad():
        text = whole(pixel_values=images(1), input_ids=tokens_of(folder, texts, 77)).text_embeds
        expected = unit(text @ whole.visual_projection.weight)
    torch.testing.assert_close(model.classifier.weight.detach(), expected, rtol=0, atol=1e-6)
    assert model.classifier.weight.shape == (5, 32) and model.classifier.scale == 25.0
    assert model.config.id2label[1] == "great_white shark" and model.config.num_labels == 5
    assert list(model.config.image_mean) == [0.1, 0.2, 0.3] and not model.training
    assert not any("text" in name for name, _ in model.named_parameters())  # used once and dropped
    torch.testing.assert_close(model.features(images()), whole.vision_model(images()).pooler_output, rtol=0, atol=0)


def test_logits_are_the_similarity_of_text_and_image_up_to_one_factor_per_image_and_class(clip):
    whole, folder = clip
    model = ClipForLongTail.from_clip(folder, NAMES, progress=False)
    with torch.no_grad():
        x = whole.vision_model(images()).pooler_output
        tower = TextTower(whole, lambda texts: tokens_of(folder, texts, 77))
        text = tower.features([f"a photo of a {n.replace('_', ' ')}." for n in NAMES])
        similarity = whole.visual_projection(x) @ text.T  # t . W x, not normalised
        lengths = x.norm(dim=1)[:, None] * (text @ whole.visual_projection.weight).norm(dim=1)
    torch.testing.assert_close(model(images()).logits, 25 * similarity / lengths, rtol=1e-4, atol=1e-4)


def test_siglip_starts_with_the_ranking_of_siglip(siglip):
    """Its image feature is in the shared space already: logits are SigLIP's, except for scale and bias."""
    whole, folder = siglip
    model = ClipForLongTail.from_clip(folder, NAMES, progress=False)
    texts = [f"a photo of a {n.replace('_', ' ')}." for n in NAMES]
    with torch.no_grad():
        logits = whole(pixel_values=images(), input_ids=tokens_of(folder, texts, 16)).logits_per_image
        cosines = (logits - whole.logit_bias) / whole.logit_scale.exp()
    torch.testing.assert_close(model(images()).logits, 25 * cosines, rtol=1e-4, atol=1e-4)


def test_the_average_over_templates(clip):
    whole, folder = clip
    templates = ("a photo of a {}.", "the {} in a video game, seen by many people", "{}")
    model = ClipForLongTail.from_clip(folder, NAMES[:2], templates, progress=False)
    expected = []
    for name in ("tench", "great white shark"):
        texts = [t.replace("{}", name) for t in templates]  # each counts alike, however long its feature is
        each = whole(pixel_values=images(1), input_ids=tokens_of(folder, texts, 77)).text_embeds
        expected.append(unit(unit(sum(each) / 3) @ whole.visual_projection.weight))
    torch.testing.assert_close(model.classifier.weight.detach(), torch.stack(expected).detach(), rtol=0, atol=1e-6)


def test_transformers_and_open_clip_start_alike(tmp_path):
    """The same weights from either library: tokenizers and towers agree."""
    from models.clips import clip_tokenizer

    from hf_ltsam.models.clip_source import load_clip

    _, name = open_clip_checkpoint(tmp_path, "tiny-alike", architecture(quick_gelu=True))
    load_clip(name).text.clip.save_pretrained(tmp_path / "hf")
    clip_tokenizer(tmp_path / "hf").save_pretrained(tmp_path / "hf")
    ours = [ClipForLongTail.from_clip(str(n), NAMES, CLIP80[:3], progress=False) for n in (name, tmp_path / "hf")]
    torch.testing.assert_close(ours[0](images()).logits, ours[1](images()).logits, rtol=0, atol=1e-5)


def test_the_80_templates_are_the_published_ones(shared):
    published = json.loads((shared / "lists" / "clip" / "imagenet_prompts.json").read_text())["templates"]
    assert list(CLIP80) == published


def test_templates_by_name_and_from_a_file(tmp_path):
    assert templates_named("one") == ONE == ("a photo of a {}.",)
    assert len(templates_named("clip80")) == len(set(CLIP80)) == 80
    (tmp_path / "mine.txt").write_text("an X-ray of {}.\n\n  {}, seen from above\n")
    assert templates_named(str(tmp_path / "mine.txt")) == ("an X-ray of {}.", "{}, seen from above")
    (tmp_path / "wrong.txt").write_text("a photo\n")
    with pytest.raises(ValueError, match=r"wrong\.txt.*'a photo'.*\{\}"):
        templates_named(str(tmp_path / "wrong.txt"))
    with pytest.raises(FileNotFoundError, match=r"clip81.*one, clip80"):
        templates_named("clip81")


def test_class_means_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-5.0, 0.0]])
    means = class_means(x, torch.tensor([0, 0, 1]), 2)
    a = np.array([0.6, 0.8 + 1.0]) / 2  # unit features count alike, however long they were
    np.testing.assert_allclose(means.numpy(), [a / np.linalg.norm(a), [-1, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="Class 2 has no training sample"):
        class_means(x, torch.tensor([0, 0, 1]), 3)
    with pytest.raises(ValueError, match="Label 3 is outside the class range 0 to 1"):
        class_means(x, torch.tensor([0, 3, 1]), 2)


def probe_loss(w, x, y, scale, weights):
    return (F.cross_entropy(scale * unit(x) @ w.T, y, reduction="none") * weights[y]).sum() + w.square().sum() / 2


@pytest.mark.parametrize("classes", [2, 3])
def test_the_linear_probe_minimises_its_loss(classes):
    torch.manual_seed(0)
    y = torch.tensor([0] * 20 + [1] * 6 + [2] * 3) % classes
    x = torch.randn(29, 4, dtype=torch.float64) + 2 * torch.eye(4, dtype=torch.float64)[y]
    a = len(y) / (classes * torch.bincount(y).double())
    w = torch.zeros(classes, 4, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [w], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        loss = probe_loss(w, x, y, 5.0, a)
        loss.backward()
        return loss

    solver.step(closure)
    got = linear_probe(x.float(), y, classes, scale=5.0)
    if classes == 2:  # scikit-learn regularises one vector for the two classes: the direction is the same
        torch.testing.assert_close(got[0], -got[1])
        assert F.cosine_similarity(got[1].double(), (w[1] - w[0]).detach(), dim=0) > 0.99
    else:
        torch.testing.assert_close(got.double(), unit(w.detach()), rtol=0, atol=5e-3)


def test_the_first_samples_of_every_class():
    labels = torch.tensor([1, 0, 1, 1, 0, 2])
    assert first_of_every_class(labels, 2).tolist() == [0, 1, 2, 4, 5]
    assert first_of_every_class(labels, None).tolist() == list(range(6))


def test_features_are_the_inputs_of_the_classifier(clip):
    model = ClipForLongTail.from_clip(clip[1], NAMES, init="random", progress=False).train()
    labels = [0, 0, 0, 1, 2, 3, 4, 1]
    data = Images(images(8), labels)
    features, got = frozen_features(model, data, 5, max_per_class=2, batch_size=3, progress=False)
    kept = [0, 1, 3, 4, 5, 6, 7]
    torch.testing.assert_close(features, model.features(images(8)[kept]).detach(), rtol=1e-5, atol=1e-6)
    assert got.tolist() == [labels[k] for k in kept] and model.training and not features.requires_grad


@pytest.mark.parametrize("init", ["class_mean", "linear_probe"])
def test_starts_from_images(clip, init):
    data = Images(images(12), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0])
    model = ClipForLongTail.from_clip(clip[1], NAMES, init=init, train_dataset=data, max_per_class=2, progress=False)
    features = model.features(images(10)).detach()  # the first two of every class
    made = (
        class_means(features, data.labels[:10], 5)
        if init == "class_mean"
        else linear_probe(features, data.labels[:10], 5, 25.0)
    )
    torch.testing.assert_close(model.classifier.weight.detach(), made, rtol=1e-3, atol=1e-3)
    assert (model(images(10)).logits.argmax(1) == data.labels[:10]).float().mean() >= 0.9
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("centred", [True, False])
def test_a_linear_layer_that_tells_classes_by_the_angle_to_their_mean(centred):
    """s <mu_c - mu, x - mu> / (|mu_c - mu| r), in loops; a frequent class has no more of a say in mu than a rare one."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 9 + [1] * 4 + [2] * 2)
    features = torch.randn(15, 6, generator=generator) + 3 + 2 * torch.randn(3, 6, generator=generator)[labels]
    x = features.double().numpy()
    means = [np.mean([x[i] for i in range(15) if labels[i] == c], axis=0) for c in range(3)]
    centre = sum(means) / 3 if centred else np.zeros(6)
    distance = sum(np.linalg.norm(row - centre) for row in x) / 15
    expected = [
        [10 * np.dot(m - centre, row - centre) / np.linalg.norm(m - centre) / distance for m in means] for row in x
    ]
    weights, biases = nearest_mean(features, labels, 3, centred)
    logits = features @ weights.T + biases
    torch.testing.assert_close(logits.double(), torch.tensor(np.array(expected)), rtol=1e-4, atol=1e-4)
    if not centred:
        assert not biases.any()
    with pytest.raises(ValueError, match="Class 3 has no training sample"):
        nearest_mean(features, labels, 4)


class Pooled(nn.Module):
    """Features of a point with dropout and batch norm before the classifier; `spread` is what its input adds to a constant."""

    def __init__(self, spread, dropout):
        super().__init__()
        self.config = BertConfig(num_labels=4)
        self.norm, self.dropout = nn.BatchNorm1d(6, affine=False), nn.Dropout(dropout)
        self.classifier = nn.Linear(6, 4)
        self.spread = spread

    def forward(self, x):
        return self.classifier(self.dropout(1 + self.spread * self.norm(x)))


def points(count=96):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    x = torch.randn(count, 6, generator=generator) + 3 * torch.eye(6)[labels]
    return [{"x": row, "labels": int(c)} for row, c in zip(x, labels)]


@pytest.mark.parametrize(
    ("spread", "dropout", "whole"),
    [(1.0, 0.1, True), (0.3, 0.1, True), (0.001, 0.0, True), (0.1, 0.1, False), (0.001, 0.1, False)],
)
def test_class_means_that_dropout_drowns_start_nearer_to_zero(spread, dropout, whole):
    """Otherwise the first loss of a network that is not trained is in the hundreds."""
    model, data = Pooled(spread, dropout).train(), points()
    torch.manual_seed(0)
    expected, biases = nearest_mean(*frozen_features(model, data, 4, progress=False), 4)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start_from_images(model, "class_mean", data, progress=False)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert model.training and model.norm.num_batches_tracked == 0
    assert torch.equal(model.norm.running_mean, torch.zeros(6))
    share = float((model.classifier.weight / expected).mean())
    torch.testing.assert_close(model.classifier.weight.detach(), share * expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.classifier.bias.detach(), share * biases, rtol=1e-3, atol=1e-6)
    assert (share == pytest.approx(1)) == whole
    assert [str(w.message).split(",")[0] for w in caught] == ([] if whole else ["init='class_mean': while training"])
    first = nn.functional.cross_entropy(
        model(torch.stack([d["x"] for d in data])), torch.tensor([d["labels"] for d in data])
    )
    assert first < 2 * math.log(4)


def test_random_start_and_dtype(clip):
    a, b = (
        ClipForLongTail.from_clip(
            clip[1], NAMES, init="random", dtype=t, cosine_scale=10.0, learnable_scale=True, attn_implementation="eager"
        )
        for t in (torch.float32, torch.bfloat16)
    )
    assert a.classifier.weight.dtype == torch.float32 and b.dtype == torch.bfloat16
    torch.testing.assert_close(a.classifier.weight.norm(dim=1), torch.ones(5))
    assert a.classifier.scale.item() == 10.0 and a.classifier.scale.requires_grad
    assert a.vision_model.config._attn_implementation == "eager"


@pytest.fixture(scope="module")
def tower(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    clip[0].vision_model.save_pretrained(folder)
    return str(folder)


def test_a_tower_sees_the_pixels_that_its_image_processor_makes(tower, tmp_path):
    shutil.copytree(tower, tmp_path / "tower")
    CLIPImageProcessor(do_normalize=False).save_pretrained(tmp_path / "tower")
    config = ClipForLongTail.from_clip(str(tmp_path / "tower"), NAMES, init="random").config
    assert (tuple(config.image_mean), tuple(config.image_std)) == ((0.0,) * 3, (1.0,) * 3)


def test_an_image_tower_alone(clip, tower):
    model = ClipForLongTail.from_clip(tower, NAMES, init="random")
    torch.testing.assert_close(model.features(images()), clip[0].vision_model(images()).pooler_output, rtol=0, atol=0)
    assert list(model.config.image_mean) == [0.48145466, 0.4578275, 0.40821073]  # CLIP's, without a processor beside it
    with pytest.raises(ValueError, match=r"image tower alone.*openai/clip-vit-base-patch16.*class_mean"):
        ClipForLongTail.from_clip(tower, NAMES)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"init": "texts"}, r"init=.*'texts'.*Did you mean 'text'"),
        ({"init": "class_mean"}, r"init='class_mean'.*train_dataset"),
        ({"templates": "a photo of a {}."}, r"templates.*one or more"),
        ({"templates": ["a photo"]}, r"templates.*'a photo'"),
        ({"class_names": ["one"]}, r"class_names.*two or more.*\['one'\]"),
        ({"class_names": "cats"}, r"class_names.*'cats'"),
        ({"max_per_class": 0}, r"max_per_class.*at least 1, got 0"),
        ({"cosine_scale": -25.0}, r"cosine_scale.*positive.*-25"),
        (
            {"class_names": ["n01440764", "n01443537", "hen"]},
            r"2 of 3 class names are WordNet numbers such as n01440764",
        ),
    ],
)
def test_refusals(clip, arguments, message):
    with pytest.raises(ValueError, match=message):
        ClipForLongTail.from_clip(clip[1], **{"class_names": NAMES, "progress": False, **arguments})


def test_neither_clip_nor_siglip(tmp_path):
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'vit', neither CLIP nor SigLIP"):
        ClipForLongTail.from_clip(str(tmp_path), NAMES)
