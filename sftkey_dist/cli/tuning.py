"""The command that tunes keys of a configuration."""

import shlex

from sftkey_dist.cli.arguments import Configuration, lasting, separate_overrides
from sftkey_dist.cli.exits import require_complete
from sftkey_dist.cli.output import as_relative
from sftkey_dist.config import load_tuning
from sftkey_dist.config.yaml_text import write_yaml
from sftkey_dist.console import console
from sftkey_dist.files import write_text_atomically


def tune(configuration: Configuration) -> None:
    """Try values of keys in one strategy, and write the best ones to best.yaml.

    The section `tune` of a file names keys with their values. Every trial is trained in a folder of its own and
    measured on held-out rows, and bad ones are stopped early (ASHA). Stages that are the same in all trials are trained
    once. Run the same command again after an interruption: trials that are done are kept.
    """
    files, overrides = separate_overrides(configuration)
    tuning = load_tuning(files, overrides)
    from sftkey_dist.pipeline.tuning.plan import trial_config
    from sftkey_dist.pipeline.tuning.tune import run_tuning
    from sftkey_dist.report.tuning import caution, tuning_table, write_tuning_page

    record = run_tuning(tuning)
    console.print(tuning_table(record))
    console.print(caution(record), soft_wrap=True, markup=False)
    command = shlex.join(["sftkey", "tune", *lasting(configuration, tuning.folder)])
    written = write_tuning_page(record, tuning.folder, command)
    if record.best is not None:
        best = tuning.folder / "best.yaml"
        content = write_yaml(trial_config(tuning, record.best.run_dir, record.best.parameters).model_dump(mode="json"))
        head = f"# {caution(record)}\n# `sftkey run` evaluates its model; another run_dir and seed train a new one.\n"
        write_text_atomically(best, head + content)
        written.append(best)
    for file in written:
        console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)
    require_complete([f"{trial.label}: {trial.problem}" for trial in record.trials if trial.status == "failed"])
