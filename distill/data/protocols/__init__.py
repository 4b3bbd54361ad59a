"""What others measure face recognition on: verification sets, lists of pairs, IJB's templates."""
