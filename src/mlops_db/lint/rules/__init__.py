"""The rules, one a module: the `check` of each module in this folder is the rule of that name. No list names it."""

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from mlops_db.lint.rule import FileRule, HeadRule, Rule, RunRule

RULES: tuple[Rule, ...] = tuple(
    replace(import_module(f"{__name__}.{module.name}").check, name=module.name.replace("_", "-"))
    for module in iter_modules(__path__)
)
FILE_RULES = [rule for rule in RULES if isinstance(rule, FileRule)]
RUN_RULES = [rule for rule in RULES if isinstance(rule, RunRule)]
HEAD_RULES = [rule for rule in RULES if isinstance(rule, HeadRule)]
ACCEPTABLE = [rule.name for rule in RULES if rule.may_be_accepted]
