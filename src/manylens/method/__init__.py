"""The method, pure: arrays and values in, rounds of questions out, answers in. No model, no disk, no network.

observations   what is known of the images: looks, descriptions in comparable form
graph, walk    the relational graph, and the walks that make units of it
vocabulary     descriptions grouped into categories, where the model writes
trial          whether the judge's answers can be used
likelihood     what a similarity, a confidence and an answer say
sorting        where units and images stand, given all answers
check          which question is worth asking next
levels         coarser and finer clusterings of a finished one
estimate       how many images are misplaced, with an interval
assignment     clusters and confidences as they are shown
naming         names and definitions
"""
