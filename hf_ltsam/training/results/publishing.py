"""A trainer that publishes on the Hub without ever waiting for it in the middle of a training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import logging

from hf_ltsam.runs.card import Stated, card_files, leaderboard_files, model_card, read_facts
from hf_ltsam.runs.files import write_whole
from hf_ltsam.runs.folder import CARD, RECIPE, seed_of
from hf_ltsam.runs.hub import (
    BackgroundUploads,
    HubError,
    Upload,
    checkpoint_files,
    create_repository,
    require_network,
    run_files,
    send,
    within,
)
from hf_ltsam.training.durable_trainer import DurableTrainer

logger = logging.get_logger(__name__)

START_PATIENCE = 30.0  # seconds for making the repository before the training
END_PATIENCE = 300.0  # seconds for unfinished uploads after it: other processes wait at their next exchange meanwhile
_STAGING = ".hub_uploads"


class HubTrainer(DurableTrainer):
    """`DurableTrainer` whose `push_to_hub` and `hub_strategy` send our cards, and survive a Hub that fails.

    During a training, uploads run in a thread of their own, from hard links that neither a later checkpoint nor
    `save_total_limit` takes away. One that fails is tried again with the next save and at the end; the run's own files
    are only ever read. Pickles such as `training_args.bin` stay here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._uploads = BackgroundUploads()  # before the stock constructor, which makes the repository
        super().__init__(*args, **kwargs)

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike[str] | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `DurableTrainer`; uploads that are under way are finished after the callbacks' own end of the training."""
        output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        self.finish_uploads()
        return output

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository; a Hub that cannot be reached now is asked again later.

        Raises:
            HubError: HF_HUB_OFFLINE is set, or the token may not write there.
        """
        require_network("push_to_hub=True")
        if not self.is_world_process_zero():
            return
        self.push_in_progress = None
        shutil.rmtree(self._staging, ignore_errors=True)  # of a run that was killed
        name = self.args.hub_model_id or _name_of(Path(self.args.output_dir).absolute())
        make = partial(create_repository, name, token or self.args.hub_token, self._private(private))
        try:
            self.hub_model_id = within(START_PATIENCE, make, f"Making the repository {name}")
        except HubError as error:
            if not error.temporary:
                raise
            self.hub_model_id = name
            logger.warning(f"{error} The training goes on; the repository is made with the first upload.")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        *,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> Any:
        """Save the model and send it with its card, statistics, metrics.json, recipe and figures.

        The card is that of an override of `create_model_card`, where there is one.

        Args:
            commit_message, token, revision, private: as in `transformers.Trainer`.
            blocking: wait until it is sent; otherwise a `Future` is returned at once.
            model_name: title of the card; the name of the repository where it is None.
            license: an identifier of the Hub's; None: the card says that none is stated.
            language, tags, finetuned_from, tasks, dataset_tags, dataset, dataset_args: what the run itself does not know,
                as in `transformers.Trainer`.

        Returns:
            `huggingface_hub.CommitInfo`, or a `Future` of it; None in all processes but the first.

        Raises:
            HubError: it could not be sent; says why, and how to try again. Everything is saved here.
        """
        require_network("push_to_hub()")
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        words: dict[str, Any] = {
            "language": language,
            "license": license,
            "tags": [*_several(tags), *(getattr(self.model, "model_tags", None) or ())] or None,
            "model_name": model_name,
            "finetuned_from": finetuned_from,
            "tasks": tasks,
            "dataset_tags": dataset_tags,
            "dataset": dataset,
            "dataset_args": dataset_args,
        }
        if type(self).create_model_card is not HubTrainer.create_model_card and self.is_world_process_zero():
            words["model_name"] = model_name or self._repository(token, private).rpartition("/")[2]
            self.create_model_card(**{name: value for name, value in words.items() if value is not None})
            card: Path | None = Path(self.args.output_dir) / CARD
        else:
            card = None
        return self.publish_saved(
            commit_message or "End of training",
            blocking,
            token,
            revision,
            private,
            stated=_stated(**words),
            model_name=model_name,
            card=card,
        )

    def publish_saved(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        stated: Stated | None = None,
        model_name: str | None = None,
        card: Path | None = None,
    ) -> Any:
        """`push_to_hub` of what is saved in `output_dir` already, with our card or the one in a file."""
        if not self.is_world_process_zero():
            return None
        folder = Path(self.args.output_dir)
        repo, token = self._repository(token, private), token or self.args.hub_token
        facts = read_facts(folder)
        files = {**run_files(folder), **card_files(facts, repo, stated, model_name)}
        files |= {} if card is None else {CARD: card}
        entries = leaderboard_files(facts, repo, stated)
        revision = revision or self.args.hub_revision
        upload = Upload(repo, files, commit_message, revision, self._private(private), entries=entries)
        self._uploads.drop()
        if not blocking:
            return self._uploads.submit(partial(send, upload, token))
        return self._send_now(upload, token)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the card that `push_to_hub` would send to `README.md` in `output_dir`."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        stated = _stated(
            language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
        )
        name = self.hub_model_id or self.args.hub_model_id or folder.as_posix()
        card = model_card(read_facts(folder), name, stated, model_name)
        write_whole(folder / CARD, str(card))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As stock; where `push_to_hub` is set and the upload fails, a warning says so and how to try again."""
        super().save_model(output_dir, _internal_call=True)
        if not self.args.push_to_hub or _internal_call:
            return
        try:
            self.push_to_hub(commit_message="Model save")
        except HubError as error:
            logger.warning(str(error))

    def _send_now(self, upload: Upload, token: str | None) -> CommitInfo:
        try:
            self._uploads.wait(upload.patience)  # two commits at a time get into each other's way
            return within(upload.patience, partial(send, upload, token), f"Uploading to {upload.repo}")
        except HubError as error:
            again = f"ltsam push {self.args.output_dir} {upload.repo}"
            message = f"{error} Everything is saved in {self.args.output_dir}; `{again}` tries again."
            raise HubError(message, error.temporary, error.wait) from None

    def _repository(self, token: str | None, private: bool | None) -> str:
        if self.hub_model_id is None:  # push_to_hub() without push_to_hub=True
            self.init_hf_repo(token, private)
        return str(self.hub_model_id)

    def _private(self, given: bool | None) -> bool | None:
        """Also where the repository is made later than at the start."""
        return self.args.hub_private_repo if given is None else given

    def push_checkpoint(self, folder: Path) -> None:
        """Begin the upload of a checkpoint, in a thread of its own."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        try:
            staged = _linked(folder, self._staging / f"step-{self.state.global_step}")
            files, message = self._files_of_checkpoint(staged), self._progress_message()
            upload = Upload(str(self.hub_model_id), files, message, self.args.hub_revision, self._private(None))
        except Exception as error:  # a full disk, say: nothing about an upload may end the training
            logger.warning(
                f"The checkpoint of step {self.state.global_step} is not uploaded to {self.hub_model_id}: {error}"
            )
            return
        needless = self.args.hub_strategy != HubStrategy.ALL_CHECKPOINTS and not self.args.hub_always_push
        self._uploads.submit(
            partial(send, upload, self.args.hub_token),
            replaceable=needless,
            discard=partial(shutil.rmtree, staged, True),
        )

    def _files_of_checkpoint(self, staged: Path) -> Mapping[str, Path | bytes]:
        """Model and card at the root of the repository, and the checkpoint in a folder of its own where it is wanted."""
        recipe = Path(self.args.output_dir) / RECIPE
        if recipe.is_file():
            shutil.copy2(recipe, staged / RECIPE)
        files: dict[str, Path | bytes] = {**run_files(staged), **card_files(read_facts(staged), str(self.hub_model_id))}
        strategy = self.args.hub_strategy
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            latest = strategy == HubStrategy.CHECKPOINT
            files |= checkpoint_files(staged, "last-checkpoint" if latest else f"checkpoint-{self.state.global_step}")
        return files

    def _progress_message(self) -> str:
        if self.args.save_strategy == SaveStrategy.STEPS:
            return f"Training in progress, step {self.state.global_step}"
        return f"Training in progress, epoch {int(self.state.epoch or 0)}"

    def finish_uploads(self) -> None:
        """At the end of the training: wait a little for what is under way, and try once more what has failed."""
        if not self.is_world_process_zero():
            return
        if not self._uploads.finish(END_PATIENCE):
            logger.warning(
                f"The last checkpoints are not all on the Hub ({self.hub_model_id}). They are in {self.args.output_dir}: "
                "trainer.push_to_hub() or `ltsam push` sends the model."
            )
            return
        shutil.rmtree(self._staging, ignore_errors=True)

    @property
    def _staging(self) -> Path:
        return Path(self.args.output_dir) / _STAGING


update_wrapper(HubTrainer.__init__, DurableTrainer.__init__)


_Words = str | list[str] | None


def _stated(
    language: str | None,
    license: str | None,
    tags: _Words,
    model_name: str | None,
    finetuned_from: str | None,
    tasks: _Words,
    dataset_tags: _Words,
    dataset: _Words,
    dataset_args: _Words,
) -> Stated:
    """What `create_model_card` is told; the name of the model is a title, and not part of it."""
    return Stated(
        license,
        language,
        _several(tags),
        _several(dataset_tags),
        _several(tasks),
        _several(dataset),
        _several(dataset_args),
        finetuned_from,
    )


def _several(given: str | list[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _name_of(folder: Path) -> str:
    """The folder's name, with that of its parent where it only says which seed: runs/mine/seed0 -> mine-seed0."""
    return f"{folder.parent.name}-{folder.name}" if seed_of(folder) is not None else folder.name


def _linked(folder: Path, target: Path) -> Path:
    """A folder of hard links to the files of another; of copies where links cannot be."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file():
            try:
                (target / file.name).hardlink_to(file)
            except OSError:
                shutil.copy2(file, target / file.name)
    return target
