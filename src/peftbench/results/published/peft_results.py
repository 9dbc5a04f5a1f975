"""The result files of peft's method comparison: reading them as published results, and writing runs in their schema.

One JSON file per run with the parts `run_info`, `train_info` and `meta_info`, as written by
`method_comparison/MetaMathQA/run.py` of the repository huggingface/peft. The prefix of memory fields changed from
`cuda_` to `accelerator_`.
"""

import json
import math
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult
from peftbench.models import address
from peftbench.results.published import Published
from peftbench.results.published.peft_methods import config_of, method_of

PARTS = ("run_info", "train_info", "meta_info")
SOURCE = "huggingface/peft method_comparison"
TRAINED_ON = {"metamath": "MetaMathQA"}
"""Data sets that are only used for training."""
ACCURACY = ("accuracy", "final_number")
"""Metrics of peftbench that correspond to `test accuracy` of the schema: the share of correct answers."""


def read_result_file(path: Path) -> Published | str:
    """Return the published score of a result file, or the reason why it has none: its run did not succeed.

    Raises `UserError` if the file is not such a result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        absent = [part for part in PARTS if not isinstance(content, dict) or part not in content]
        if absent:
            raise ValueError(f"it has no {', '.join(absent)}")
        run, train, meta = (content[part] for part in PARTS)
        if train["status"] != "success":
            return f"its status is {train['status']}" + (f" ({run['error_msg']})" if run.get("error_msg") else "")
        return _published(run, train, meta)
    except LookupError as error:
        why = f"it has no {error}"
    except (OSError, AttributeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
    raise UserError(f"{path} is not a result of peft's method comparison: {why}")


def _published(run: dict[str, Any], train: dict[str, Any], meta: dict[str, Any]) -> Published:
    asked, versions = run["train_config"], meta["package_info"]
    metric, score = _score(train["metrics"][-1])
    method, arguments = method_of(run["peft_config"], asked)
    task, trained_on = _data(list(meta["dataset_info"]))
    steps = [part["train time"] for part in train["metrics"] if part.get("train time") is not None]
    return Published(
        source=f"peftbench {versions['peftbench-version']}" if "peftbench-version" in versions else SOURCE,
        model=asked["model_id"],
        method=method,
        method_arguments=arguments,
        published_as=run["experiment_name"],
        task=task,
        metric=metric,
        score=100 * score,
        train_data=trained_on,
        seed=asked["seed"],
        learning_rate=(asked.get("optimizer_kwargs") or {}).get("lr"),
        machine=meta["system_info"].get("accelerator") or meta["system_info"].get("gpu") or "",
        date=run["created_at"] or "",
        trainable_parameters=train["num_trainable_params"],
        total_parameters=train["num_total_params"],
        train_seconds=math.fsum(steps) if steps else None,
        train_phase_seconds=train["train_time"],
        memory_reserved_max_bytes=_memory(train, "memory_max"),
        memory_reserved_p99_bytes=_memory(train, "memory_reserved_99th"),
        adapter_bytes=train["file_size"],
        forgetting_loss=train["metrics"][-1].get("forgetting"),
    )


def _memory(train: dict[str, Any], name: str) -> Any:
    return train[f"accelerator_{name}"] if f"accelerator_{name}" in train else train[f"cuda_{name}"]


def _score(last: dict[str, Any]) -> tuple[str, float]:
    """Return the name and value of the first test score. peft writes one; peftbench writes the main metric first."""
    for name, value in last.items():
        if name.startswith("test ") and value is not None:
            return name.removeprefix("test "), float(value)
    raise ValueError("its last metrics have no test score")


def _data(names: list[str]) -> tuple[str, str]:
    """Return the tested task and the training data, empty if it is the task's own."""
    tested = [name for name in names if name not in TRAINED_ON]
    if len(tested) != 1:
        raise ValueError(f"it is unknown which data set was tested: {', '.join(names) or 'none is named'}")
    return tested[0], ", ".join(TRAINED_ON[name] for name in names if name in TRAINED_ON)


def peft_result(result: RunResult) -> dict[str, Any]:
    """Return a run of peftbench in the schema. Fields that were not measured are `None`."""
    spec, costs = result.spec, result.costs
    # Experiment names of the schema have one slash, after the method.
    model = spec.model_name.replace("/", "--")
    name = f"{spec.method.name}/{model}-{spec.task}-n{spec.size}-s{spec.seed}-{result.id}"
    return {
        "run_info": {
            "created_at": None,
            "total_time": None,
            "experiment_name": name,
            "peft_branch": None,
            "train_config": _train_config(result),
            "peft_config": config_of(spec.method),
            "error_msg": result.error or "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": None,
            "accelerator_memory_reserved_99th": None,
            "train_time": None,
            "file_size": costs.adapter_bytes,
            "num_trainable_params": costs.trainable_parameters,
            "num_total_params": costs.total_parameters,
            "status": "success" if result.status == "ok" else "failed",
            "metrics": [*_curve(result), _test(result)],
        },
        "meta_info": _meta(result),
    }


def _train_config(result: RunResult) -> dict[str, Any]:
    train = result.spec.train
    unknown = ("eval_steps", "query_template", "use_amp", "autocast_adapter_dtype", "generation_kwargs")
    return dict.fromkeys(unknown) | {
        "model_id": address(result.spec.model.name),
        "dtype": result.base.get("precision"),
        "max_seq_length": train.max_length,
        "batch_size": train.per_device_train_batch_size * train.gradient_accumulation_steps,
        "batch_size_eval": result.spec.eval.per_device_eval_batch_size,
        "max_steps": result.steps,
        "compile": False,
        "seed": result.spec.seed,
        "grad_norm_clip": train.max_grad_norm,
        "optimizer_type": "AdamW",
        "optimizer_kwargs": {"lr": result.learning_rate, "weight_decay": train.weight_decay},
        "lr_scheduler": train.lr_scheduler_type,
        "attn_implementation": result.base.get("attention"),
    }


def _curve(result: RunResult) -> list[dict[str, Any]]:
    """Return the validations; the times between them add up to `train_seconds`."""
    until = [point.seconds for point in result.curve]
    if until and result.costs.train_seconds is not None:
        until[-1] = result.costs.train_seconds
    tokens = [0, *(point.tokens for point in result.curve)]
    parts = []
    for i, point in enumerate(result.curve):
        seconds = until[i] - (until[i - 1] if i else 0.0)
        parts.append(
            {
                "step": point.step,
                "valid accuracy": None,
                "train loss": point.train_loss,
                "train samples": None,
                "train time": seconds,
                "eval time": None,
                "tokens / sec": (tokens[i + 1] - tokens[i]) / seconds if seconds > 0 else None,
                "mem allocated avg": None,
                "mem reserved avg": None,
                "elapsed time": None,
            }
        )
    return parts


def _test(result: RunResult) -> dict[str, Any]:
    scores: dict[str, float | None] = {}
    for metric, score in result.scores.items():
        name = "accuracy" if metric in ACCURACY else metric
        scores.setdefault(f"test {name}", None if score.value is None else score.value / 100)
    last = result.curve[-1] if result.curve else None
    return {
        "step": result.steps,
        **scores,
        "test accuracy": scores.get("test accuracy"),
        "train loss": last and last.train_loss,
        "train samples": None,
        "train total tokens": last and last.tokens,
    }


def _meta(result: RunResult) -> dict[str, Any]:
    # A mirror without a manifest has the revision "mirror" instead of a commit.
    revision = result.data.revision if result.data and result.data.revision != "mirror" else None
    gpus = result.machine.get("gpus") or [None]
    packages = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
    versions = {f"{name}-version": result.versions.get(name) for name in packages}
    hashes = {f"{name}-commit-hash": None for name in packages}
    ours = {"peftbench-version": result.versions.get("peftbench", "")}
    return {
        "model_info": {"sha": result.base.get("commit"), "created_at": None},
        "dataset_info": {str(result.spec.task): {"sha": revision, "created_at": None}},
        "package_info": versions | hashes | ours,
        "system_info": {
            "system": result.machine.get("system"),
            "release": None,
            "version": None,
            "machine": None,
            "processor": result.machine.get("cpu"),
            "accelerator": gpus[0],
        },
        "pytorch_info": None,
    }
