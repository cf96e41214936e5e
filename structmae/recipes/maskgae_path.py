from dataclasses import replace

from structmae.recipes.maskgae_edge import RECIPE as EDGE

RECIPE = replace(EDGE, name="maskgae_path", mask=replace(EDGE.mask, strategy="walk", length=3))
