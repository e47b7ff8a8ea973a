"""A small CLIP that works: digits and their captions, trained from scratch in seconds."""

import json

import numpy as np
import torch
import torch.nn.functional as F

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTIONS = (
    "a photo of a {}.",
    "a drawing of the {}.",
    "a blurry photo of a {}.",
    "a sketch of the {}.",
    "a photo of my {}.",
)
ARCHITECTURE = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 8, "layers": 3, "width": 64, "head_width": 16, "patch_size": 2, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 2.0},
}
MODEL = "digits-ViT"
MEAN, STD = 0.305, 0.376  # of the pixels in [0, 1]


def digits():
    """Images (1797, 3, 8, 8) of about zero mean and unit variance, labels (1797,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32).sub(MEAN).div(STD)[:, None].expand(-1, 3, -1, -1)
    return images.contiguous(), torch.tensor(data.target)


def pretrain(folder, steps=300, images=900, seed=0):
    """Train on the first images, save as a checkpoint of open_clip, and return the name under which `from_clip` finds it."""
    import open_clip

    path = folder / f"{MODEL}.json"
    path.write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(path)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = open_clip.create_model(MODEL)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.5)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = open_clip.get_tokenizer(MODEL)([c.replace("{}", n) for n in NAMES for c in CAPTIONS])
    length = int(tokens.argmax(1).max()) + 1
    used, tokens = tokens[:, :length].unique(return_inverse=True)  # sorted, so that the last token stays the highest
    tokens = tokens.view(10, len(CAPTIONS), length)
    # only what the captions need is trained, for speed
    model.token_embedding = torch.nn.Embedding.from_pretrained(
        whole["token_embedding.weight"][used].clone(), freeze=False
    )
    model.positional_embedding = torch.nn.Parameter(whole["positional_embedding"][:length].clone())
    model.attn_mask = model.attn_mask[:length, :length]
    x, y = (t[:images] for t in digits())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(steps):
        rows = torch.from_numpy(rng.choice(images, 64, replace=False))
        texts = tokens[torch.arange(10), torch.from_numpy(rng.integers(0, len(CAPTIONS), 10))]
        i, t = F.normalize(model.encode_image(x[rows])), F.normalize(model.encode_text(texts))
        loss = F.cross_entropy(14 * i @ t.T, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = model.state_dict()
    whole["token_embedding.weight"][used] = trained.pop("token_embedding.weight")
    whole["positional_embedding"][:length] = trained.pop("positional_embedding")
    torch.save({**whole, **trained}, folder / "digits.pt")
    return f"open_clip:{MODEL}/{folder / 'digits.pt'}"
