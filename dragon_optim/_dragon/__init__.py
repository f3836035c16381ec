# SPDX-License-Identifier: BSD-2-Clause
"""Dragon's internals, and only here.

Everything above this folder speaks of tensors, groups and graphs. What Dragon 0.3.0 does not document
(workspaces, handles, graph definitions, the hook points of its tape) is used in these modules and nowhere
else, so that a new Dragon means changes here alone.
"""
