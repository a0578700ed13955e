"""timm on PyTorch. Imported by a worker only."""

import torch

# As TensorFlow does by default: numbers below the normal range are zero instead of slow.
torch.set_flush_denormal(True)


def fit(task, compiled):
    """A plain training step: forward (under autocast in bfloat16), backward, fused AdamW."""
    model = build(task).train()
    parameters = _count(model)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    batch = images(task)
    labels = torch.randint(task.config["num_classes"], (task.batch,))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=task.precision == "bfloat16")

    def step():
        with autocast:
            logits = forward(batch)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return step, parameters


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
