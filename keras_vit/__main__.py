"""`python -m keras_vit`: the same commands as `keras_vit`."""

import sys

from keras_vit_cli import main

sys.exit(main())
