"""Golden prompts and targets, on rows of our own in the schema of each source."""

from typing import Any

# name: (row of our own in the source's schema, prompt, target)
GOLDEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "sst2": (
        {"sentence": "a slow but rewarding film . ", "label": 1, "idx": 0},
        "Does the sentence from a film review speak well or badly of the film?\n"
        "Answer with one of: negative, positive.\n"
        "sentence: a slow but rewarding film .",
        "positive",
    ),
    "cola": (
        {"sentence": "The boat sank slow the.", "label": 0, "idx": 0},
        "Would a native speaker of English accept the sentence as grammatical?\n"
        "Answer with one of: unacceptable, acceptable.\n"
        "sentence: The boat sank slow the.",
        "unacceptable",
    ),
    "rte": (
        {"sentence1": "Ann sold her boat to Bo.", "sentence2": "Bo bought a boat.", "label": 0, "idx": 0},
        "Is sentence2 true if sentence1 is? If it is, that is entailment.\n"
        "Answer with one of: entailment, not_entailment.\n"
        "sentence1: Ann sold her boat to Bo.\n"
        "sentence2: Bo bought a boat.",
        "entailment",
    ),
    "boolq": (
        {"question": "do mills need wind", "passage": "Mill -- Some mills run on water.", "idx": 0, "label": 0},
        "Judging by the passage, is the answer to the question yes (true) or no (false)?\n"
        "Answer with one of: false, true.\n"
        "passage: Mill -- Some mills run on water.\n"
        "question: do mills need wind",
        "false",
    ),
    "ag_news": (
        {"text": "Probe lands A probe has landed on a small moon.", "label": 3},
        "In which section of a newspaper does the text belong?\n"
        "Answer with one of: World, Sports, Business, Sci/Tech.\n"
        "text: Probe lands A probe has landed on a small moon.",
        "Sci/Tech",
    ),
    "gsm8k": (
        {"question": "Bo has 2 boats with 3 oars each. How many oars?", "answer": "It is 2*3=<<2*3=6>>6 oars.\n#### 6"},
        "Solve the problem step by step. End with a line of #### and the answer as a number.\n"
        "question: Bo has 2 boats with 3 oars each. How many oars?",
        "It is 2*3=6 oars.\n#### 6",
    ),
    "e2e_nlg": (
        {"meaning_representation": "name[Old Mill], food[Dutch]", "human_reference": "Old Mill serves Dutch food."},
        "Write a short description of the restaurant that says all of these facts and no others.\n"
        "facts: name[Old Mill], food[Dutch]",
        "Old Mill serves Dutch food.",
    ),
    "mnli": (
        {"premise": "Bo rows every day.", "hypothesis": "Bo is never on the water.", "label": 2, "idx": 0},
        "If the premise is true, is the hypothesis true (entailment), false (contradiction) or open (neutral)?\n"
        "Answer with one of: entailment, neutral, contradiction.\n"
        "premise: Bo rows every day.\n"
        "hypothesis: Bo is never on the water.",
        "contradiction",
    ),
    "qqp": (
        {"question1": "How do I row?", "question2": "How does one row a boat?", "label": 1, "idx": 0},
        "Do the two questions ask the same thing, so that an answer to one answers the other?\n"
        "Answer with one of: not_duplicate, duplicate.\n"
        "question1: How do I row?\n"
        "question2: How does one row a boat?",
        "duplicate",
    ),
    "qnli": (
        {"question": "Who built the mill?", "sentence": "The mill was built by Ann.", "label": 0, "idx": 0},
        "Does the sentence contain the answer to the question? If it does, that is entailment.\n"
        "Answer with one of: entailment, not_entailment.\n"
        "question: Who built the mill?\n"
        "sentence: The mill was built by Ann.",
        "entailment",
    ),
    "stsb": (
        {"sentence1": "A man rows.", "sentence2": "A man is rowing.", "label": 4.61499977111816, "idx": 0},
        "How alike are the two sentences in meaning? Answer with a number from 0.0 (nothing in common) to 5.0 "
        "(the same), with one decimal.\n"
        "sentence1: A man rows.\n"
        "sentence2: A man is rowing.",
        "4.6",
    ),
    "mrpc": (
        {"sentence1": "Ann sold a boat .", "sentence2": "Ann bought a boat .", "label": 0, "idx": 0},
        "Do the two sentences mean the same?\n"
        "Answer with one of: not_equivalent, equivalent.\n"
        "sentence1: Ann sold a boat .\n"
        "sentence2: Ann bought a boat .",
        "not_equivalent",
    ),
    "record": (
        {
            "passage": "The mill at Arle burnt on Friday\n@highlight\nNobody was hurt\n@highlight\nAnn Bell saw it",
            "query": "The fire in @placeholder was seen for miles.",
            "entities": ["Arle", "Friday", "Ann Bell"],
            "entity_spans": {"text": ["Arle"], "start": [12], "end": [16]},
            "answers": ["Arle"],
            "idx": {"passage": 0, "query": 0},
        },
        "Which of the entities stands at @placeholder in the query, judging by the passage? "
        "Answer with the entity alone.\n"
        "passage: The mill at Arle burnt on Friday. Nobody was hurt. Ann Bell saw it.\n"
        "entities: Arle; Friday; Ann Bell\n"
        "query: The fire in @placeholder was seen for miles.",
        "Arle",
    ),
    "multirc": (
        {
            "paragraph": "Ann sold the boat to Bo and Cy.",
            "question": "Who owns the boat?",
            "answer": "Bo",
            "idx": {"paragraph": 0, "question": 0, "answer": 1},
            "label": 1,
        },
        "Judging by the paragraph, is the answer to the question right (true) or wrong (false)?\n"
        "Answer with one of: false, true.\n"
        "paragraph: Ann sold the boat to Bo and Cy.\n"
        "question: Who owns the boat?\n"
        "answer: Bo",
        "true",
    ),
    "wic": (
        {
            "word": "bank",
            "sentence1": "The boat lay at the bank.",
            "sentence2": "The bank lent us money.",
            "start1": 20,
            "start2": 4,
            "end1": 24,
            "end2": 8,
            "idx": 0,
            "label": 0,
        },
        "Does the word have the same meaning in both sentences?\n"
        "Answer with one of: false, true.\n"
        "sentence1: The boat lay at the bank.\n"
        "sentence2: The bank lent us money.\n"
        "word: bank",
        "false",
    ),
    "wsc": (
        {
            "text": "Ann thanked Bo because she had mended the boat.",
            "span1_index": 2,
            "span2_index": 4,
            "span1_text": "Bo",
            "span2_text": "she",
            "idx": 0,
            "label": 1,
        },
        "Does the pronoun, which stands between # marks, refer to the noun, which stands between * marks?\n"
        "Answer with one of: false, true.\n"
        "text: Ann thanked *Bo* because #she# had mended the boat.",
        "true",
    ),
    "cb": (
        {"premise": "Bo thinks that Ann has left. She has.", "hypothesis": "Ann has left", "idx": 0, "label": 0},
        "Judging by the premise, is the hypothesis true (entailment), false (contradiction) or open (neutral)?\n"
        "Answer with one of: entailment, contradiction, neutral.\n"
        "premise: Bo thinks that Ann has left. She has.\n"
        "hypothesis: Ann has left",
        "entailment",
    ),
    "copa": (
        {
            "premise": "The boat sank.",
            "choice1": "It had a hole.",
            "choice2": "Bo bought a new one.",
            "question": "effect",
            "idx": 0,
            "label": 1,
        },
        "Which choice is the likelier cause or effect of the premise? The question says which.\n"
        "Answer with one of: choice1, choice2.\n"
        "premise: The boat sank.\n"
        "question: effect\n"
        "choice1: It had a hole.\n"
        "choice2: Bo bought a new one.",
        "choice2",
    ),
    "mmlu": (
        {
            "question": "What drives a mill?",
            "subject": "crafts",
            "choices": ["Salt", "Wind", "Ink", "Wool"],
            "answer": 1,
        },
        "Which answer to the question is right?\n"
        "Answer with one of: A, B, C, D.\n"
        "question: What drives a mill?\n"
        "A: Salt\nB: Wind\nC: Ink\nD: Wool",
        "B",
    ),
    "piqa": (
        {"goal": "Keep a boat from drifting.", "sol1": "Paint it.", "sol2": "Tie it to a post.", "label": 1},
        "Which solution reaches the goal?\n"
        "Answer with one of: solution1, solution2.\n"
        "goal: Keep a boat from drifting.\n"
        "solution1: Paint it.\n"
        "solution2: Tie it to a post.",
        "solution2",
    ),
    "siqa": (
        {
            "context": "Ann lent Bo her boat.",
            "question": "How does Bo feel?",
            "answerA": "angry",
            "answerB": "sleepy",
            "answerC": "grateful",
            "label": "3",
        },
        "Which answer to the question about the context is the likeliest?\n"
        "Answer with one of: A, B, C.\n"
        "context: Ann lent Bo her boat.\n"
        "question: How does Bo feel?\n"
        "A: angry\nB: sleepy\nC: grateful",
        "C",
    ),
    "hellaswag": (
        {
            "ind": 4,
            "activity_label": "Rowing",
            "ctx_a": "Ann gets into a boat.",
            "ctx_b": "then Ann",
            "ctx": "Ann gets into a boat. then Ann",
            "endings": ["takes the oars.", "bakes bread.", "is a mill.", "reads the sea."],
            "source_id": "made",
            "split": "train",
            "split_type": "indomain",
            "label": "0",
        },
        "Which ending goes on from the context?\n"
        "Answer with one of: ending1, ending2, ending3, ending4.\n"
        "context: Ann gets into a boat. then Ann\n"
        "ending1: takes the oars.\n"
        "ending2: bakes bread.\n"
        "ending3: is a mill.\n"
        "ending4: reads the sea.",
        "ending1",
    ),
    "winogrande": (
        {"sentence": "Ann paid Bo as _ had mended the oar.", "option1": "Ann", "option2": "Bo", "answer": "2"},
        "Which option belongs in the place of _ in the sentence?\n"
        "Answer with one of: option1, option2.\n"
        "sentence: Ann paid Bo as _ had mended the oar.\n"
        "option1: Ann\n"
        "option2: Bo",
        "option2",
    ),
    "openbookqa": (
        {
            "id": "0-1",
            "question_stem": "A sail needs",
            "choices": {"text": ["sugar", "a mill", "wind", "a lamp"], "label": ["A", "B", "C", "D"]},
            "answerKey": "C",
        },
        "Which choice completes or answers the question?\n"
        "Answer with one of: A, B, C, D.\n"
        "question: A sail needs\n"
        "A: sugar\nB: a mill\nC: wind\nD: a lamp",
        "C",
    ),
    "math_qa": (
        {
            "Problem": "a boat goes 12 km in 3 hours . how fast is it ?",
            "Rationale": "12 / 3 = 4",
            "options": "a ) 3 km / h , b ) 4 km / h , c ) 1,000 km / h , d ) 5 km / h , e ) none of these",
            "correct": "b",
            "annotated_formula": "divide(12, 3)",
            "linear_formula": "divide(n0,n1)|",
            "category": "physics",
        },
        "Which answer to the problem is right?\n"
        "Answer with one of: a, b, c, d, e.\n"
        "problem: a boat goes 12 km in 3 hours . how fast is it ?\n"
        "a: 3 km / h\nb: 4 km / h\nc: 1,000 km / h\nd: 5 km / h\ne: none of these",
        "b",
    ),
    "svamp": (
        {
            "ID": "made-1",
            "Body": "Ann had 8 oars. She sold 3 of them",
            "Question": "How many oars are left?",
            "Equation": "( 8.0 - 3.0 )",
            "Answer": "5",
            "Type": "Subtraction",
            "question_concat": "Ann had 8 oars. She sold 3 of them How many oars are left?",
        },
        "Solve the problem. Answer with the equation and its value, as in ( 2 + 3 ) = 5.\n"
        "problem: Ann had 8 oars. She sold 3 of them How many oars are left?",
        "( 8 - 3 ) = 5",
    ),
    "samsum": (
        {"id": "0", "dialogue": "Ann: boat at 5?\r\nBo: yes 🚣\r\n", "summary": "Ann and Bo will row at 5."},
        "Write a short summary of the dialogue, in the third person.\ndialogue: Ann: boat at 5?\nBo: yes 🚣",
        "Ann and Bo will row at 5.",
    ),
    "xsum": (
        {"document": "It burnt all night.\nNobody was hurt.", "summary": "A mill at Arle has burnt down.", "id": "1"},
        "Say in one sentence what the article is about.\ndocument: It burnt all night.\nNobody was hurt.",
        "A mill at Arle has burnt down.",
    ),
    "conala": (
        {"question_id": 1, "intent": "How to sort?", "rewritten_intent": "sort list `Xs`", "snippet": "Xs.sort()"},
        "Write Python code that does what is asked. Answer with the code alone.\nrequest: sort list `Xs`",
        "Xs.sort()",
    ),
    "codealpacapy": (
        {"prompt": "Write a function that doubles N.", "response": "def double(N):\n  return 2 * N"},
        "Answer the request about Python.\nrequest: Write a function that doubles N.",
        "def double(N):\n  return 2 * N",
    ),
    "apps": (
        {"question": "Add 1 to n.", "solutions": '["def add(n):\\n  return n + 1"]', "starter_code": "def add(n):\n\t"}
        | {"problem_id": 1, "input_output": '{"fn_name": "add", "inputs": [[1]], "outputs": [2]}', "url": ""},
        "Write a Python program that solves the problem. Answer with the program alone.\n"
        "question: Add 1 to n.\n"
        "starter_code: def add(n):",
        "def add(n):\n  return n + 1",
    ),
}
