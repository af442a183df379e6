"""Distillation: a network learns from the outputs and features of another one."""
