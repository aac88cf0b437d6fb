"""What the command line's verbs do, one file each. `cli` names them and parses their flags."""
