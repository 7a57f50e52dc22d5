"""Small loops that make the calls of large training scripts, in their order, in our own words.

A comment that stands alone in a line and begins with ``@@`` is the place of a hunk of
``docs/recipes/large_scale.md``: there its added lines go.
"""

import inspect
import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "recipes" / "large_scale.md").read_text("utf-8")
DIFFS = dict(re.findall(r"^## (\S+)\n.*?^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
HUNK = re.compile(r"^@@ -(\S+) \+(\S+) @@ (.+)\n((?:[-+].*\n)+)", re.MULTILINE)
PLACE = re.compile(r"^( *)# @@ (.+)\n", re.MULTILINE)

NANOGPT = """
# @@ the imports
optimizer = make_optimizer(model)
# @@ after the optimizer is made
if checkpoint is not None:
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    scaler.load_state_dict(checkpoint["scaler"])
    # @@ where the optimizer's state is loaded
for step in range(first, last):
    for group in optimizer.param_groups:
        group["lr"] = 0.01 / (1 + step)
    for micro_batch in range(2):
        scaler.scale(loss_of(model, step, micro_batch) / 2).backward()
    if grad_clip != 0.0:
        scaler.unscale_(optimizer)
        # @@ in place of clip_grad_norm_, below scaler.unscale_
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    logged.append(
        {
            "step": step,
            # @@ what is logged
        }
    )
checkpoint = {
    "model": model.state_dict(),
    "optimizer": optimizer.state_dict(),
    "scaler": scaler.state_dict(),
    # @@ what is saved
}
"""
TORCHTITAN = """
# @@ the imports
class Trainer:
    def __init__(self, parallel_dims, model_parts, max_norm):
        self.model_parts, self.max_norm = model_parts, max_norm
        self.optimizers = Optimizers(model_parts)
        # @@ Trainer.__init__, once self.optimizers is built
        self.checkpointer = SimpleNamespace(
            # @@ Trainer.__init__, what the checkpointer saves
        )

    def train_step(self, step):
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        for part in self.model_parts:
            loss_of(part, step, 0).backward()
        parameters = [p for part in self.model_parts for p in part.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm, foreach=True)
        torch._assert_async(norm.full_tensor().isfinite(), "the norm is not finite")
        self.optimizers.step()
        return {
            "norm": float(norm.full_tensor()),
            # @@ Trainer.train_step, what is logged
        }

    def state_dict(self):
        return {"step": 0}

    def load_state_dict(self, state):
        pass
"""
VERL = """
# @@ the imports
class FSDPEngine:
    def __init__(self, module, clip_grad, scaler):
        self.optimizer_config = SimpleNamespace(clip_grad=clip_grad)
        self.module, self.scaler, self.rank = module, scaler, 0
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        # @@ FSDPEngine._build_model_optimizer, once the optimizer is built

    def optimizer_step(self):
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if isinstance(self.module, FSDPModule):
            # @@ FSDPEngine.optimizer_step, in the branch of FSDPModule
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif norm_is_finite(grad_norm):
            self.optimizer.step()
        else:
            self.optimizer.zero_grad()
        return grad_norm.item()

    def save_checkpoint(self, local_path):
        torch.save(self.module.state_dict(), os.path.join(local_path, "model.pt"))
        # @@ FSDPEngine.save_checkpoint, after the manager's

    def load_checkpoint(self, local_path):
        self.module.load_state_dict(torch.load(os.path.join(local_path, "model.pt")))
        # @@ FSDPEngine.load_checkpoint, after the manager's
"""
LOOPS = {"nanoGPT": NANOGPT, "torchtitan": TORCHTITAN, "verl": VERL}
THEIRS = {
    "in place of clip_grad_norm_, below scaler.unscale_": (
        "torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)"
    ),
    "FSDPEngine.optimizer_step, in the branch of FSDPModule": (
        "parameters, clip = self.module.parameters(), self.optimizer_config.clip_grad\n"
        "grad_norm = torch.nn.utils.clip_grad_norm_(parameters, clip).full_tensor()"
    ),
}


def additions(script):
    """What the diff adds, by place."""
    return {
        place: inspect.cleandoc("\n".join(["", *re.findall(r"^\+(.*)$", lines, re.MULTILINE)]))
        for *_, place, lines in HUNK.findall(DIFFS[script])
    }


def with_diff(script, **replaced):
    """The loop with the added lines in it; ``replaced``: another text for a clipper's making."""
    loop = filled(script, additions(script))
    for made in replaced.values():
        loop, count = re.subn(r"cliplab\.Clipper\((\w+), .+\)$", made, loop, flags=re.MULTILINE)
        assert count == 1
    return loop


def without_diff(script):
    return filled(script, THEIRS)


def filled(script, texts):
    """The loop with texts in its places, as far in as these are."""

    def text(match):
        indent, place = match.groups()
        return "".join(f"{indent}{line}\n" for line in texts.get(place, "").splitlines())

    return PLACE.sub(text, LOOPS[script])
