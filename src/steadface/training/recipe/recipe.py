"""A recipe: everything a training run depends on, checked before anything long starts."""

from pydantic import model_validator

from steadface.training.recipe.method import Method
from steadface.training.recipe.sections import Data, EvaluationOptions, HeadOptions, Model, Optimizer, Run, Section


class Recipe(Section):
    """One training run: its sections, and what has to hold between them."""

    name: str
    data: Data = Data()
    model: Model = Model()
    head: HeadOptions = HeadOptions()
    method: Method = Method()
    optimizer: Optimizer = Optimizer()
    evaluation: EvaluationOptions = EvaluationOptions()
    run: Run

    @property
    def needs_reference(self) -> bool:
        """Whether a term compares with the embeddings of a frozen model."""
        return self.head.kind == "none" or self.method.regularizer.uses_reference

    @model_validator(mode="after")
    def _faces_are_named(self) -> "Recipe":
        data = self.data
        if (data.images is None) == (data.synthetic is None):
            raise ValueError(
                "give either data.images (a folder of identity folders, or a .rec file) or data.synthetic, and set the "
                "other to null"
            )
        if data.people is not None and data.images is None:
            raise ValueError("data.people says who is on data.images: give that folder, or set data.people to null")
        if data.extra is not None and self.head.kind != "none":
            raise ValueError(
                f"data.extra has no labels, and head.kind {self.head.kind} needs them: set head.kind to none, or "
                "data.extra to null"
            )
        return self

    @model_validator(mode="after")
    def _batches_come_out_even(self) -> "Recipe":
        batch, parts = self.data.batch, self.optimizer.accumulate
        if batch % parts or batch // parts < 2:
            raise ValueError(
                f"data.batch {batch} does not part into {parts} equal micro-batches of two or more "
                "(optimizer.accumulate)"
            )
        if self.data.sampling == "balanced" and batch % self.data.images_per_person:
            raise ValueError(
                f"data.batch {batch} is not a multiple of data.images_per_person {self.data.images_per_person}"
            )
        return self

    @model_validator(mode="after")
    def _models_are_there(self) -> "Recipe":
        model = self.model
        if self.needs_reference and model.start is None and model.reference is None:
            raise ValueError(
                "a reference model is asked for (head.kind none, or reference terms): give model.start, or "
                "model.reference for a student"
            )
        if model.corner is not None and model.start is None:
            raise ValueError("model.corner rounds what model.start brings: give that, or set model.architecture.corner")
        if model.reference is not None and not (self.needs_reference or self.method.regularizer.function):
            raise ValueError("nothing asks for model.reference: set head.kind none, or weights of the reference terms")
        return self

    @model_validator(mode="after")
    def _method_fits_together(self) -> "Recipe":
        method, targets = self.method, self.method.targets
        if targets.kind == "none" and (method.attack.goal != "dodge" or method.regularizer.triplet):
            raise ValueError("without targets (targets.kind none) set attack.goal: dodge and regularizer.triplet: 0")
        if method.source == 0 and (method.gate.kind != "always" or method.timing != "next"):
            raise ValueError(
                "method.source 0 trains on adversarial samples only: set gate.kind: always and timing: next"
            )
        if (targets.designate == "map") != (targets.map is not None):
            raise ValueError("targets.designate map and targets.map FILE belong together")
        if method.batchnorm in ("frozen", "folded") and self.model.start is None:
            raise ValueError(f"batchnorm {method.batchnorm} keeps the statistics of trained weights: give model.start")
        return self

    @model_validator(mode="after")
    def _people_are_held_out(self) -> "Recipe":
        if self.run.select is not None and not (self.run.validate_every and self.data.validation):
            raise ValueError(
                "run.select chooses by looks at held-out people: set run.validate_every and data.validation above 0"
            )
        if self.method.attack.probe is not None and self.data.validation == 0:
            raise ValueError("attack.probe needs held-out people: data.validation above 0")
        if self.method.gate.kind == "verification" and self.data.validation == 0:
            raise ValueError("gate.kind verification needs held-out people: data.validation above 0")
        return self
