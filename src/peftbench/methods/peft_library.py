from typing import Any

from peftbench.methods import METHODS, Adapted, Method, family
from peftbench.methods._peft_types import (
    adapt_with_peft,
    check_arguments,
    config_class,
    signature,
    type_facts,
    type_summary,
    types,
)


@family(key="type", names=types)
def peft(member: str) -> Method:
    """A tuner of the installed `peft` by its type. Its arguments are the fields of the library's configuration class.

    `target_modules` may list roles; its default depends on the type and is mostly the roles q and v. Raises `UserError`
    for a type that the library does not have.
    """
    config_class(member)
    kind = member.upper()

    def function(model: Any, **arguments: Any) -> Adapted:
        return adapt_with_peft(model, kind, arguments)

    function.__doc__ = type_summary(kind)
    function.__signature__ = signature(kind)  # type: ignore[attr-defined]
    return Method(
        METHODS.kind, f"peft:{member.lower()}", function, type_facts(kind), lambda given: check_arguments(kind, given)
    )
