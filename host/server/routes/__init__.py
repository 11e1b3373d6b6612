"""The routes: a module for each family, each with a tuple `ROUTES`."""

from . import canvas, files, jobs, models, nodes, prompts, queue, settings, system, userdata

# The canvas last: its files are found where nothing else is.
FAMILIES = (prompts, queue, jobs, nodes, files, userdata, settings, models, system, canvas)
