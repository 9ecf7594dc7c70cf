"""What the stages do for each kind of data; a recipe's `data.kind` names one."""
