"""Operations: a specification in plain torch and a fast twin, behind one function each."""
