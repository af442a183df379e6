"""Adaptation of a network from a labelled source domain to an unlabelled target domain."""
