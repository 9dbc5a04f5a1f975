"""Seconds a cell of a grid of small runs, side by side with `transformers.Trainer`: `python bench/grid.py [REPEATS]`.

The grid: three methods on three tasks with two seeds; 256 training rows, 40 steps of 8 rows, 4 validations of 32 rows,
answers of 64 test rows generated greedily. All ways get the same training, validation and test rows, learning rates,
schedule and adapter settings, keep the step of the lowest validation loss, and have one thread a process:

- `peftbench`: the command `peftbench run` with its defaults, in float32, and in float32 with one worker;
- `trainer, one process`: `Trainer` with checkpoints and `load_best_model_at_end`, then `generate` in batches of 8; the
  model is loaded for each cell;
- `trainer, a process a cell`: the same with a new interpreter for each cell, as scripts of benchmarks do;
- `peft-factory`: the LoRA cells by the program `peftfactory-cli` of PEFT-Factory, if the variable PEFT_FACTORY has its
  path (`pip install peftfactory==0.9.4.8 transformers==4.51.3 "pyarrow<22" jieba nltk rouge_chinese` in an environment
  of its own): a process a cell, without validations, as it has none by default.

The rows come to `Trainer` as token ids, so it has no tokenizing to do. The ways take turns; the table has the medians
over the repeats and the ranges, the mean scores over all cells and over those of LoRA, and this machine's facts.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS = {"lora": 2e-3, "ia3": 0.1, "lntuning": 3e-2}
"""With the learning rate of each."""
Scored = tuple[str, float]
"""Method and score of a cell."""
TASKS = ("pocket_topic", "pocket_arithmetic", "pocket_data_to_text")
SEEDS = (0, 1)
ROWS, STEPS, BATCH, TEST_ROWS, VALIDATIONS, VALIDATION_ROWS = 256, 40, 8, 64, 4, 32
GRID = f"""
methods = [{", ".join(f'{{ use = "{name}", learning_rate = {rate} }}' for name, rate in METHODS.items())}]
tasks = {json.dumps(TASKS)}
sizes = [{ROWS}]
seeds = {list(SEEDS)}
[train]
precision = "PRECISION"
max_steps = {STEPS}
per_device_train_batch_size = {BATCH}
eval_steps = {STEPS // VALIDATIONS}
validation_rows = {VALIDATION_ROWS}
[eval]
answer = "generate"
test_rows = {TEST_ROWS}
"""


def cells(model: str) -> list[dict[str, Any]]:
    """Every cell of the grid as plain values: its rows as token ids, its settings, and the folder of the model."""
    from transformers import AutoTokenizer

    from peftbench.engine.tokenization import Encoder, encode_examples
    from peftbench.models import find
    from peftbench.tasks import TASKS as UNITS
    from peftbench.tasks._splits import RowLimits, split

    folder = find(model).source
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = []
    for task in TASKS:
        for seed in SEEDS:
            splits = split(UNITS[task], {}, ROWS, seed, RowLimits(VALIDATION_ROWS, TEST_ROWS), root=None)
            encoder = Encoder(tokenizer, UNITS[task].facts, 512)
            rows = {
                part: [[row.prompt, row.target] for row in encode_examples(encoder, getattr(splits, part))]
                for part in ("train", "validation", "test")
            }
            made += [
                {
                    "model": folder,
                    "method": method,
                    "rate": rate,
                    "task": task,
                    "seed": seed,
                    "new_tokens": UNITS[task].facts.max_new_tokens,
                    **rows,
                }
                for method, rate in METHODS.items()
            ]
    return made


def with_trainer(cell: dict[str, Any]) -> list[str]:
    """Train and answer one cell with the library alone; the answers as text."""
    import torch
    from peft import IA3Config, LNTuningConfig, LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(cell["seed"])
    modules = ["k_proj", "v_proj", "down_proj"]
    configs: dict[str, Any] = {
        "lora": LoraConfig(r=16, lora_alpha=16, lora_dropout=0.05, target_modules=modules, task_type="CAUSAL_LM"),
        "ia3": IA3Config(target_modules=modules, feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
        "lntuning": LNTuningConfig(task_type="CAUSAL_LM"),
    }
    tokenizer = AutoTokenizer.from_pretrained(cell["model"])
    base = AutoModelForCausalLM.from_pretrained(cell["model"], dtype=torch.float32)
    model = get_peft_model(base, configs[cell["method"]])

    def collate(rows: list[list[list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(prompt) + len(target) for prompt, target in rows)
        batch = {"input_ids": torch.zeros(len(rows), width, dtype=torch.long)}
        batch |= {"attention_mask": torch.zeros_like(batch["input_ids"]), "labels": batch["input_ids"] - 100}
        for i, (prompt, target) in enumerate(rows):
            length = len(prompt) + len(target)
            batch["input_ids"][i, :length] = torch.tensor(prompt + target)
            batch["attention_mask"][i, :length] = 1
            batch["labels"][i, len(prompt) : length] = torch.tensor(target)
        return batch

    with tempfile.TemporaryDirectory() as folder:
        asked = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=cell["rate"],
            warmup_steps=3,
            eval_strategy="steps",
            eval_steps=STEPS // VALIDATIONS,
            save_strategy="steps",
            save_steps=STEPS // VALIDATIONS,
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            label_names=["labels"],
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            seed=cell["seed"],
            use_cpu=True,
        )
        trainer = Trainer(
            model, asked, data_collator=collate, train_dataset=cell["train"], eval_dataset=cell["validation"]
        )
        trainer.train()
    model.eval()
    answers = []
    for start in range(0, len(cell["test"]), BATCH):
        prompts = [prompt for prompt, _ in cell["test"][start : start + BATCH]]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=cell["new_tokens"],
                do_sample=False,
                pad_token_id=0,
                eos_token_id=tokenizer.eos_token_id,
            )
        answers += [text.strip() for text in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]
    return answers


def trainer_process(file: str) -> None:
    """Run the cells of a JSON file with the library and write their answers beside it."""
    import torch

    torch.set_num_threads(1)
    found = [with_trainer(cell) for cell in json.loads(Path(file).read_text())]
    Path(file).with_suffix(".answers").write_text(json.dumps(found))


def by_trainer(chosen: list[dict[str, Any]], folder: Path, *, a_process_each: bool) -> list[Scored]:
    """Run the cells with the library, in one process or in one each; return method and score of each cell."""
    answers: list[list[str]] = []
    for number, part in enumerate([[cell] for cell in chosen] if a_process_each else [chosen]):
        file = folder / f"cells-{number}.json"
        file.write_text(json.dumps(part))
        run([sys.executable, __file__, "--cells", str(file)])
        answers += json.loads(file.with_suffix(".answers").read_text())
    return [(cell["method"], score(cell, found)) for cell, found in zip(chosen, answers, strict=True)]


def by_peft_factory(chosen: list[dict[str, Any]], folder: Path, program: str) -> list[Scored]:
    """Run cells of LoRA with PEFT-Factory, a process each; return method and score of each cell."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chosen[0]["model"])
    model = Path(shutil.copytree(chosen[0]["model"], folder / "model"))
    # As its version of transformers wrote them.
    known = {"eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token, "model_max_length": 2048}
    (model / "tokenizer_config.json").write_text(json.dumps(known | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    config = json.loads((model / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (model / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    scores: list[Scored] = []
    for number, cell in enumerate(chosen):
        place = folder / str(number)
        place.mkdir()
        for part in ("train", "test"):
            rows = [
                {"instruction": tokenizer.decode(prompt), "input": "", "output": tokenizer.decode(target)}
                for prompt, target in cell[part]
            ]
            (place / f"{part}.json").write_text(json.dumps(rows))
        files = {part: {"file_name": f"{part}.json"} for part in ("train", "test")}
        (place / "dataset_info.json").write_text(json.dumps(files))
        asked = {
            "model_name_or_path": str(model),
            "stage": "sft",
            "do_train": True,
            "do_predict": True,
            "predict_with_generate": True,
            "finetuning_type": "lora",
            "lora_rank": 16,
            "lora_alpha": 16,
            "lora_dropout": 0.05,
            "lora_target": "k_proj,v_proj,down_proj",
            "dataset": "train",
            "eval_dataset": "test",
            "dataset_dir": str(place),
            "template": "empty",
            "cutoff_len": 512,
            "output_dir": str(place / "out"),
            "per_device_train_batch_size": BATCH,
            "per_device_eval_batch_size": BATCH,
            "gradient_accumulation_steps": 1,
            "learning_rate": cell["rate"],
            "max_steps": STEPS,
            "lr_scheduler_type": "linear",
            "warmup_steps": 3,
            "max_new_tokens": cell["new_tokens"],
            "do_sample": False,
            "seed": cell["seed"],
            "report_to": "none",
        }
        (place / "run.json").write_text(json.dumps(asked))
        run([program, "train", str(place / "run.json")])
        lines = (place / "out" / "generated_predictions.jsonl").read_text().splitlines()
        answers = [json.loads(line)["predict"].removesuffix(tokenizer.eos_token).strip() for line in lines]
        scores.append((cell["method"], score(cell, answers)))
    return scores


def score(cell: dict[str, Any], answers: list[str]) -> float:
    """The main score of answers to the test rows of a cell."""
    from peftbench.tasks import TASKS as UNITS
    from peftbench.tasks._scoring import score_task
    from peftbench.tasks._splits import RowLimits, split

    task = UNITS[cell["task"]]
    examples = split(task, {}, ROWS, cell["seed"], RowLimits(VALIDATION_ROWS, TEST_ROWS), root=None).test
    return float(next(iter(score_task(task, examples, answers).scores.values())).value or 0.0)


def by_peftbench(folder: Path, workers: int, precision: str) -> list[Scored]:
    """Run the grid with the command line; return method and score of each cell."""
    import peftbench

    grid, store = folder / "grid.toml", folder / "store"
    grid.write_text(GRID.replace("PRECISION", precision))
    run([sys.executable, "-m", "peftbench", "run", str(grid), "--store", str(store), "--workers", str(workers)])
    table = peftbench.table(store)
    assert (table["status"] == "ok").all(), table[["method", "task", "error"]]
    return list(zip(table["method"], table["score"], strict=True))


def run(command: list[str]) -> None:
    """Run a command that must end well, with one thread a process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def main(repeats: int) -> None:
    """Take turns and print a table in Markdown."""
    from peftbench.core.provenance import machine_facts

    chosen = cells("pocket")
    ways: dict[str, Any] = {
        "peftbench, defaults": lambda folder: by_peftbench(folder, 0, "auto"),
        "peftbench, float32": lambda folder: by_peftbench(folder, 0, "fp32"),
        "peftbench, float32, one worker": lambda folder: by_peftbench(folder, 1, "fp32"),
        "trainer, one process": lambda folder: by_trainer(chosen, folder, a_process_each=False),
        "trainer, a process a cell": lambda folder: by_trainer(chosen, folder, a_process_each=True),
    }
    counts = dict.fromkeys(ways, len(chosen))
    if program := os.environ.get("PEFT_FACTORY"):
        of_lora = [cell for cell in chosen if cell["method"] == "lora"]
        ways["peft-factory, LoRA"] = lambda folder: by_peft_factory(of_lora, folder, program)
        counts["peft-factory, LoRA"] = len(of_lora)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, list[Scored]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                scores[name] = way(Path(folder))
                seconds[name].append((time.perf_counter() - started) / counts[name])
    first = statistics.median(seconds["peftbench, defaults"])
    lines = [
        f"{len(chosen)} cells, {repeats} repeats, {machine_facts()['cpu']}, {machine_facts()['cores']} cores",
        "",
        "| way | s a cell | range | times peftbench | mean score | of LoRA |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        every = "–" if counts[name] < len(chosen) else f"{statistics.fmean(each for _, each in scores[name]):.1f}"
        lora = f"{statistics.fmean(each for method, each in scores[name] if method == 'lora'):.1f}"
        span = f"{min(taken):.2f}–{max(taken):.2f}"
        lines.append(f"| {name} | {middle:.2f} | {span} | {middle / first:.1f} | {every} | {lora} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cells"]:
        trainer_process(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
