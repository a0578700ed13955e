"""timm on PyTorch. Imported by a worker only."""

import torch

# As TensorFlow does by default: numbers below the normal range are zero instead of slow.
torch.set_flush_denormal(True)


BATCHES = 40  # of a data set in memory


def fit(task, compiled, padding=None):
    """A plain training step: forward (under autocast in bfloat16), backward, fused AdamW.

    With `padding` every step draws other images from memory, crops and mirrors them.
    """
    model = build(task).train()
    parameters = _count(model)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    batch = images(task)
    labels = torch.randint(task.config["num_classes"], (task.batch,))
    draw = (lambda: (batch, labels)) if padding is None else augmented(task, padding)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=task.precision == "bfloat16")

    def step():
        batch, labels = draw()
        with autocast:
            logits = forward(batch)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return step, parameters


def augmented(task, padding):
    """A callable that draws a batch of uint8 images from memory, cropped behind a padding and mirrored as a batch."""
    height, width = task.config["image_size"]
    pixels = torch.randint(256, (BATCHES * task.batch, task.config["num_channels"], height, width), dtype=torch.uint8)
    pixels = torch.nn.functional.pad(pixels, [padding] * 4)
    labels = torch.randint(task.config["num_classes"], (len(pixels),))

    def draw():
        examples = torch.randint(len(pixels), (task.batch,))
        rows = torch.randint(2 * padding + 1, (task.batch, 1)) + torch.arange(height)
        columns = torch.randint(2 * padding + 1, (task.batch, 1)) + torch.arange(width)
        columns = torch.where(torch.rand(task.batch, 1) < 0.5, columns.flip(1), columns)
        # Channels last, as the indices come to the front.
        batch = pixels[examples[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return batch.permute(0, 3, 1, 2).float() / 127.5 - 1, labels[examples]

    return draw


def predict(task, compiled):
    """The model in inference mode; in bfloat16 with its weights cast once, the faster of PyTorch's two ways."""
    dtype = getattr(torch, task.precision)
    model = build(task).eval().to(dtype)
    parameters = _count(model)
    forward = torch.compile(model) if compiled else model
    batch = images(task)

    def step():
        with torch.inference_mode():
            forward(batch.to(dtype)).float().numpy()

    return step, parameters


def gemm(task, size):
    """One product of two square matrices, and no weights."""
    left, right = (torch.randn(size, size).to(getattr(torch, task.precision)) for _ in range(2))
    return lambda: torch.mm(left, right), 0


def images(task):
    """A batch of random images, float32, channels first."""
    return torch.randn(task.batch, task.config["num_channels"], *task.config["image_size"])


def build(task):
    """timm's VisionTransformer at the same sizes, class token, no dropout."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    config = task.config
    return VisionTransformer(
        img_size=tuple(config["image_size"]),
        patch_size=tuple(config["patch_size"]),
        in_chans=config["num_channels"],
        num_classes=config["num_classes"],
        embed_dim=config["hidden_dim"],
        depth=config["num_layers"],
        num_heads=config["num_heads"],
        # timm multiplies and truncates: half a unit more keeps an odd ratio from losing one.
        mlp_ratio=(config["mlp_dim"] + 0.5) / config["hidden_dim"],
        global_pool="token",
    )


def _count(model):
    return sum(parameter.numel() for parameter in model.parameters())
