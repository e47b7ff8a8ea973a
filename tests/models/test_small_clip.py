"""Fine-tuning of a CLIP that works: digits and their captions, pretrained here in seconds, without a download.

The pictures of the long-tailed task are shifted by one pixel and noisy, so that there is something to learn.
"""

import pytest
import torch
from models.clips import Images
from models.small_clip import NAMES, digits, pretrain

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.adapters import make_adapter
from hf_ltsam.models import ClipForLongTail
from hf_ltsam.models.clip_source import load_clip

pytestmark = pytest.mark.slow  # about 10 seconds of pretraining, and three trainings

COUNTS = (80, 60, 42, 30, 20, 14, 9, 6, 4, 3)  # of the long-tailed task: many above 40, few below 15


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return pretrain(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def task():
    images, labels = digits()  # the first 900 were seen in pretraining
    images = images.roll(1, 3) + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([(labels[:900] == c).nonzero().flatten()[:n] for c, n in enumerate(COUNTS)])
    return Images(images[rows], labels[rows]), Images(images[900:1400], labels[900:1400])


def statistics():
    return ClassStatistics(counts=COUNTS, many_above=40, few_below=15)


def accuracies(model, test):
    with torch.no_grad():
        right = (model.eval()(test.images).logits.argmax(1) == test.labels).float()
    per_class = torch.stack([right[test.labels == c].mean() for c in range(10)])
    groups = {group: float(per_class[list(classes)].mean()) for group, classes in statistics().groups.items()}
    return {**groups, "balanced": float(per_class.mean())}


def test_zero_shot_is_far_above_chance_and_equals_text_similarity(name):
    images, labels = (t[900:] for t in digits())
    model = ClipForLongTail.from_clip(name, NAMES, progress=False)
    source = load_clip(name)
    text = source.text.features([f"a photo of a {n}." for n in NAMES])
    with torch.no_grad():
        features = source.vision_model(images).pooler_output
        clip_classes = (source.text.clip.visual_projection(features) @ text.T).argmax(1)  # as CLIP itself classifies
        directions = text @ source.text.clip.visual_projection.weight
        nearest = torch.nn.functional.cosine_similarity(features[:, None], directions[None], dim=2).argmax(1)
        ours = model(images).logits.argmax(1)
    assert (ours == nearest).all()  # by the similarity of text and image where LIFT measures it: before the projection
    assert (
        ours == clip_classes
    ).float().mean() > 0.8  # normalising again changes only the lengths of the class vectors
    assert (ours == labels).float().mean() > 0.8  # chance is 0.1


def test_starts_from_images_beat_a_random_one(name, task):
    train, test = task
    starts = {
        init: accuracies(ClipForLongTail.from_clip(name, NAMES, init=init, train_dataset=train, progress=False), test)
        for init in ("random", "class_mean", "linear_probe")
    }
    assert starts["random"]["balanced"] < 0.3
    assert starts["class_mean"]["balanced"] > 0.45 and starts["linear_probe"]["balanced"] > 0.45
    capped = ClipForLongTail.from_clip(
        name, NAMES, init="class_mean", train_dataset=train, max_per_class=3, progress=False
    )
    assert accuracies(capped, test)["balanced"] > 0.3


def tuned(name, train, loss, folder, seed=0):
    torch.manual_seed(seed)
    model = make_adapter(ClipForLongTail.from_clip(name, NAMES, progress=False), "adaptformer", {}, 10)
    args = LTSamConfig(
        output_dir=str(folder),
        num_train_epochs=10,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.02,
        per_device_train_batch_size=16,
        method="sgd",
        loss=loss,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        seed=seed,
    )
    LTSamTrainer(model, args, train_dataset=train, class_statistics=statistics()).train()
    return model


def test_lift_with_logit_adjustment_improves_few_shot_classes_over_zero_shot_and_over_ce(name, task, tmp_path):
    train, test = task
    zero_shot = accuracies(ClipForLongTail.from_clip(name, NAMES, progress=False), test)
    ce, la = (
        accuracies(tuned(name, train, loss, tmp_path / loss), test) for loss in ("cross_entropy", "logit_adjustment")
    )
    assert la["few"] > zero_shot["few"] + 0.03
    assert la["few"] > ce["few"] + 0.03
    assert la["balanced"] > zero_shot["balanced"] + 0.1
