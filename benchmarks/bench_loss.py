"""The pair loss against plain torch and torch.compile; takes the options of
`python -m distill.losses.bench`.
"""

from distill.losses.bench import main

if __name__ == "__main__":
    main()
