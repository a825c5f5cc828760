"""A configuration of experts that names none to be had."""

from uso.training.make.config import ExpertsConfig

CONFIG = ExpertsConfig.model_validate(
    {
        "size": 96,
        "moved": 1.0,
        "stylization": {"repo": "a", "instructions": ["Show {subject}."], "subjects": ["a fox", "a cup"]},
        "destylization": {"repo": "b", "kept": ["A photograph."], "moved": ["Elsewhere."]},
        "filters": {"min_style": 0.2, "min_subject": 0.2},
    }
)
