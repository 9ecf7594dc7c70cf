"""The program `geovision`: one module a verb."""
