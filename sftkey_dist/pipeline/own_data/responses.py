"""Samples responses of the model that a stage starts from, and makes the stage's training data of them.

Generations are appended to a journal as they arrive and are never repeated. What is made of them is cheap: it is judged
and encoded again whenever a check, the contract or what is left out changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sftkey_dist.config.own_data import OwnDataConfig
from sftkey_dist.console import console, progress_line
from sftkey_dist.data.building.store_builder import StoreBuilder
from sftkey_dist.data.building.task import example_encoder, prompt_encoder
from sftkey_dist.data.encoding.encode import ENCODER_VERSION
from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.data.store import EncodedStore, is_store
from sftkey_dist.data.stored_rows import StoredRow, stored_rows
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.acceptance import ACCEPTANCE_VERSION
from sftkey_dist.evaluation.generation.fan_out import has_generations, read_generations
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.judging import SCORING_VERSION
from sftkey_dist.pipeline.encoding import encoding_of
from sftkey_dist.pipeline.evaluation_settings import settings_for_own_data
from sftkey_dist.pipeline.generation_pool import generation_pool
from sftkey_dist.pipeline.own_data.store import Judging, yield_of
from sftkey_dist.pipeline.responding_model import begin_responses
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.report.numbers import counted
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import SAMPLED_ROWS, YIELD, SampleYield
from sftkey_dist.run_dir.paths import JudgedSamplesDir, SamplesDir
from sftkey_dist.sampler import count_trained


def with_own_responses(plan: RunPlan, planned: PlannedStage, data: OwnDataConfig) -> PlannedStage:
    """The stage with its own training data, which are sampled, judged and encoded as far as that is not done.

    Args:
        plan: the run.
        planned: a stage whose previous stage is finished.
        data: what the stage trains on.

    Raises:
        DataError: no row has an accepted response, and those without are left out.
    """
    sampling = _Sampling(plan, planned, data)
    begin_responses(sampling.samples.path, StageDir(planned.job.model_dir.parent), planned.title)
    folder = sampling.folder
    if not is_store(folder.store):
        rows = list(stored_rows(plan.config.data, plan.config.contract, planned.data.store))
        sampling.generate(rows)
        sampling.judge_and_encode(rows)
    return _trained_on(planned, EncodedStore(folder.store), YIELD.read(folder.yielded))


@dataclass(frozen=True)
class _Sampling:
    """The samples of a stage, and what is made of them."""

    plan: RunPlan
    planned: PlannedStage
    data: OwnDataConfig

    @cached_property
    def job(self) -> EvaluationJob:
        """The model of the stage before, and how it generates."""
        planned = self.planned
        strategy = next(each.strategy for each in self.plan.strategies if each.name == planned.strategy)
        settings = settings_for_own_data(self.plan.config, strategy, self.data)
        return EvaluationJob(**vars(settings), model_dir=str(planned.job.model_dir), strategy=planned.name)

    @cached_property
    def samples(self) -> SamplesDir:
        """Folder of the samples, named by everything that they depend on; the prompts are tokens of the store."""
        inputs = self.planned.inputs
        digest = digest_json(
            {
                "model": inputs["model"],
                "store": inputs["store"],
                "held_out": self.planned.data.held_out.tolist(),
                "decoding": self.job.decoding.inputs,
                "evaluation": inputs["own_responses"]["evaluation"],
            }
        )
        return self.plan.run.samples(digest)

    @cached_property
    def folder(self) -> JudgedSamplesDir:
        """Folder of what is made of the samples, named by everything that decides it."""
        digest = digest_json(
            {
                "versions": [SCORING_VERSION, ENCODER_VERSION, ACCEPTANCE_VERSION],
                "own_responses": self.planned.inputs["own_responses"],
                "data": self.data.model_dump(mode="json"),
            }
        )
        return self.samples.judged(digest)

    def generate(self, rows: Sequence[StoredRow]) -> None:
        """Generate responses to the rows that are not held out, as far as there are none yet."""
        held_out, planned = set(self.planned.data.held_out.tolist()), self.planned
        asked = [row.example for row in rows if row.indices.start not in held_out]
        if has_generations(asked, self.samples.path):
            return
        console.print(
            f"{planned.title}: sampling {self.data.samples} responses to each of {len(asked):,} rows", soft_wrap=True
        )
        with generation_pool(self.plan.config) as pool, progress_line(f"{planned.name} sampling", len(asked)) as line:
            pool.generate(self.job, asked, self.samples.path, line.update)

    def judge_and_encode(self, rows: Sequence[StoredRow]) -> None:
        """Write what became of every row, the yield, and the store, which marks the others as complete."""
        config, digest, otherwise = self.plan.config, self.folder.path.name, self.data.otherwise
        generations = read_generations(self.samples.path)
        encoding = encoding_of(config, self.job.form, self.plan.preparation.model_dir)
        encoder = example_encoder(encoding, prompt_encoder(encoding))
        judging = Judging(self.job, encoder, self.planned.data.store, otherwise)
        builder = StoreBuilder(self.folder.store, config.contract.segment_names, digest)
        with builder.owned():
            sampled = [
                row
                for number in range(len(config.data.train))
                for row in judging.write(builder.part(number), [r for r in rows if r.source == number], generations)
            ]
            found = yield_of(sampled, otherwise)
            SAMPLED_ROWS.write(self.folder.rows, sampled)
            YIELD.write(self.folder.yielded, found)
            if otherwise == "skip" and not found.accepted_rows:
                builder.discard()
                raise _nothing_left(self.planned, found)
            builder.finish([source.place for source in config.data.train], digest, self.planned.inputs)


def _trained_on(planned: PlannedStage, store: EncodedStore, found: SampleYield) -> PlannedStage:
    """The stage on a store of its own, with as many steps as were planned on the references."""
    job, optimization = planned.job, planned.stage.optimization
    others = [other.hashes for other in planned.data.other_stores]
    held_out = held_out_indices(store.hashes, job.validation.num_examples, job.seed, others)
    trained = count_trained(store.segment_counts, planned.stage.weights, held_out, store.loss_weights)
    if not trained:
        raise _nothing_left(planned, found)
    steps_per_epoch = -(-trained // optimization.global_batch_size)
    epochs = -(-planned.num_steps // steps_per_epoch)
    stage = replace(
        planned.stage,
        optimization=optimization.model_copy(update={"num_epochs": epochs, "max_steps": planned.num_steps}),
    )
    return replace(
        planned,
        job=job.model_copy(update={"store_dir": store.path.absolute(), "stage": stage}),
        data=replace(planned.data, store=store, held_out=held_out),
        own_responses=found,
    )


def _nothing_left(planned: PlannedStage, found: SampleYield) -> DataError:
    return DataError(
        f"{planned.title}: none of {found.rows:,} rows has an accepted response to train ({counted(found.outcomes)}); "
        f"set otherwise: reference, raise samples, or train the stage before longer"
    )
