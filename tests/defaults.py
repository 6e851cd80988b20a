"""The defaults of a room's functions, for tables of them: another default changes the numbers of all who rely on it."""

import inspect


def number_defaults(function):
    """Return the numbers and switches among the defaults of a function's or a class's arguments."""
    given = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in given if isinstance(one.default, int | float)}


def defaults_of(room):
    """Return the defaults of each public function, class and method of a room that has some, by its name."""
    found = {}
    for name in room.__all__:
        thing = getattr(room, name)
        if inspect.isclass(thing):
            found[name] = number_defaults(thing.__init__) if "__init__" in vars(thing) else {}
            public = {k: v for k, v in vars(thing).items() if inspect.isfunction(v) and not k.startswith("_")}
            found |= {f"{name}.{method}": number_defaults(value) for method, value in public.items()}
        elif callable(thing):
            found[name] = number_defaults(thing)
    return {name: numbers for name, numbers in found.items() if numbers}
