"""The program `medvision`: one module a verb."""
