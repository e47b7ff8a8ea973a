"""Tiny CLIPs and SigLIPs with random weights, in the formats of transformers and open_clip."""

import gzip
import json
from pathlib import Path

import torch

NAMES = ("tench", "great_white shark", "tiger shark", "hen", "ostrich")


def architecture(quick_gelu=False, patch=8, **vision):
    """A configuration of open_clip in which all sizes differ, so that no swapped weight can fit."""
    return {
        "embed_dim": 24,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": 16,
            "layers": 3,
            "width": 32,
            "head_width": 8,
            "patch_size": patch,
            "mlp_ratio": 3.0,
            **vision,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 20, "heads": 2, "layers": 2, "mlp_ratio": 2.0},
    }


def random_open_clip(name, seed=0):
    """An open_clip model with random weights, including those that start at zero or one."""
    import open_clip

    torch.manual_seed(seed)
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def open_clip_checkpoint(folder, name, config, seed=0):
    """Register the configuration, save random weights; returns the model and the name for `from_clip`."""
    import open_clip

    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    model = random_open_clip(name, seed)
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return model, f"open_clip:{name}/{folder / f'{name}.pt'}"


def transformers_clip(folder, kind="clip", seed=0):
    """A folder as `save_pretrained` writes it: a whole CLIP or SigLIP, its tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipModel

    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 20,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    }
    if kind == "clip":
        model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=24))
    else:
        text |= {"projection_size": 32, "max_position_embeddings": 16}
        model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    clip_tokenizer(folder).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    ).save_pretrained(folder)
    return model.eval()


def clip_tokenizer(folder):
    """CLIP's tokenizer in transformers' form, from the merges that open_clip ships."""
    import open_clip
    from transformers import CLIPTokenizer

    with gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = (
        open_clip.tokenizer._tokenizer.encoder
        if hasattr(open_clip.tokenizer, "_tokenizer")
        else open_clip.SimpleTokenizer().encoder
    )
    vocabulary = {
        token.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>"): n
        for token, n in vocabulary.items()
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))


class Images(torch.utils.data.Dataset):
    """Samples as a Trainer takes them."""

    def __init__(self, images, labels):
        self.images, self.labels = images, torch.as_tensor(labels)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": int(self.labels[index])}
