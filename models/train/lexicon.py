# SPDX-License-Identifier: Apache-2.0
"""Words and phrases of the small world that the default model knows, in English, Vietnamese, French and Spanish."""

LANGS = ("en", "vi", "fr", "es")
LANG_NAMES = {
    "en": {"en": "English", "vi": "Vietnamese", "fr": "French", "es": "Spanish"},
    "vi": {"en": "tiếng Anh", "vi": "tiếng Việt", "fr": "tiếng Pháp", "es": "tiếng Tây Ban Nha"},
    "fr": {"en": "anglais", "vi": "vietnamien", "fr": "français", "es": "espagnol"},
    "es": {"en": "inglés", "vi": "vietnamita", "fr": "francés", "es": "español"},
}

# english, vietnamese (with its classifier), french, gender, spanish, gender
ANIMALS = [
    ("cat", "con mèo", "chat", "m", "gato", "m"), ("dog", "con chó", "chien", "m", "perro", "m"),
    ("bird", "con chim", "oiseau", "m", "pájaro", "m"), ("fish", "con cá", "poisson", "m", "pez", "m"),
    ("horse", "con ngựa", "cheval", "m", "caballo", "m"), ("cow", "con bò", "vache", "f", "vaca", "f"),
    ("rabbit", "con thỏ", "lapin", "m", "conejo", "m"), ("mouse", "con chuột", "souris", "f", "ratón", "m"),
    ("bear", "con gấu", "ours", "m", "oso", "m"), ("fox", "con cáo", "renard", "m", "zorro", "m"),
    ("frog", "con ếch", "grenouille", "f", "rana", "f"), ("duck", "con vịt", "canard", "m", "pato", "m"),
    ("turtle", "con rùa", "tortue", "f", "tortuga", "f"), ("owl", "con cú", "hibou", "m", "búho", "m"),
    ("lion", "con sư tử", "lion", "m", "león", "m"), ("elephant", "con voi", "éléphant", "m", "elefante", "m"),
    ("monkey", "con khỉ", "singe", "m", "mono", "m"), ("pig", "con lợn", "cochon", "m", "cerdo", "m"),
    ("sheep", "con cừu", "mouton", "m", "oveja", "f"), ("bee", "con ong", "abeille", "f", "abeja", "f"),
]
THINGS = [
    ("book", "quyển sách", "livre", "m", "libro", "m"), ("ball", "quả bóng", "ballon", "m", "pelota", "f"),
    ("hat", "cái mũ", "chapeau", "m", "sombrero", "m"), ("boat", "chiếc thuyền", "bateau", "m", "barco", "m"),
    ("house", "ngôi nhà", "maison", "f", "casa", "f"), ("key", "chiếc chìa khóa", "clé", "f", "llave", "f"),
    ("lamp", "cái đèn", "lampe", "f", "lámpara", "f"), ("flower", "bông hoa", "fleur", "f", "flor", "f"),
    ("table", "cái bàn", "table", "f", "mesa", "f"), ("chair", "cái ghế", "chaise", "f", "silla", "f"),
    ("door", "cánh cửa", "porte", "f", "puerta", "f"), ("car", "chiếc xe", "voiture", "f", "coche", "m"),
    ("kite", "con diều", "cerf-volant", "m", "cometa", "f"), ("bag", "cái túi", "sac", "m", "bolso", "m"),
    ("cup", "cái cốc", "tasse", "f", "taza", "f"), ("stone", "hòn đá", "pierre", "f", "piedra", "f"),
    ("letter", "lá thư", "lettre", "f", "carta", "f"), ("bell", "cái chuông", "cloche", "f", "campana", "f"),
    ("tree", "cái cây", "arbre", "m", "árbol", "m"), ("star", "ngôi sao", "étoile", "f", "estrella", "f"),
]
# the last item: verb "eat" or "drink"
FOODS = [
    ("apples", "táo", "pommes", "p", "manzanas", "fp", "eat"), ("bread", "bánh mì", "pain", "m", "pan", "m", "eat"),
    ("rice", "cơm", "riz", "m", "arroz", "m", "eat"), ("cheese", "phô mai", "fromage", "m", "queso", "m", "eat"),
    ("soup", "súp", "soupe", "f", "sopa", "f", "eat"), ("honey", "mật ong", "miel", "m", "miel", "f", "eat"),
    ("cake", "bánh ngọt", "gâteau", "m", "pastel", "m", "eat"), ("bananas", "chuối", "bananes", "p", "plátanos", "mp", "eat"),
    ("milk", "sữa", "lait", "m", "leche", "f", "drink"), ("tea", "trà", "thé", "m", "té", "m", "drink"),
    ("water", "nước", "eau", "f", "agua", "m", "drink"), ("coffee", "cà phê", "café", "m", "café", "m", "drink"),
]
COLOURS = [
    ("red", "màu đỏ", "rouge", "rouge", "rojo", "roja"), ("blue", "màu xanh dương", "bleu", "bleue", "azul", "azul"),
    ("green", "màu xanh lá", "vert", "verte", "verde", "verde"), ("yellow", "màu vàng", "jaune", "jaune", "amarillo", "amarilla"),
    ("black", "màu đen", "noir", "noire", "negro", "negra"), ("white", "màu trắng", "blanc", "blanche", "blanco", "blanca"),
]
# states: the last item says which Spanish verb
STATES = [
    ("happy", "vui", "content", "contente", "contento", "contenta", "está"),
    ("sad", "buồn", "triste", "triste", "triste", "triste", "está"),
    ("tired", "mệt", "fatigué", "fatiguée", "cansado", "cansada", "está"),
    ("fast", "nhanh", "rapide", "rapide", "rápido", "rápida", "es"),
    ("slow", "chậm", "lent", "lente", "lento", "lenta", "es"),
    ("strong", "khỏe", "fort", "forte", "fuerte", "fuerte", "es"),
    ("big", "to", "grand", "grande", "grande", "grande", "es"),
    ("small", "nhỏ", "petit", "petite", "pequeño", "pequeña", "es"),
    ("beautiful", "đẹp", "beau", "belle", "hermoso", "hermosa", "es"),
]
PREPS = [("on", "ở trên", "sur", "sobre"), ("under", "ở dưới", "sous", "debajo de"), ("behind", "ở sau", "derrière", "detrás de"),
         ("in front of", "ở trước", "devant", "delante de"), ("near", "ở gần", "près de", "cerca de")]
PLACES = [("school", "trường", "à l'école", "a la escuela"), ("market", "chợ", "au marché", "al mercado"),
          ("beach", "bãi biển", "à la plage", "a la playa"), ("park", "công viên", "au parc", "al parque"),
          ("garden", "vườn", "au jardin", "al jardín"), ("river", "bờ sông", "à la rivière", "al río"),
          ("library", "thư viện", "à la bibliothèque", "a la biblioteca"), ("mountain", "núi", "à la montagne", "a la montaña")]
TIMES = [("today", "hôm nay", "aujourd'hui", "hoy"), ("every day", "mỗi ngày", "chaque jour", "cada día"),
         ("on Monday", "vào thứ hai", "lundi", "el lunes"), ("on Sunday", "vào chủ nhật", "dimanche", "el domingo")]
NUMBERS = [("two", "hai", "deux", "dos"), ("three", "ba", "trois", "tres"), ("four", "bốn", "quatre", "cuatro"),
           ("five", "năm", "cinq", "cinco"), ("six", "sáu", "six", "seis"), ("seven", "bảy", "sept", "siete"),
           ("eight", "tám", "huit", "ocho"), ("nine", "chín", "neuf", "nueve"), ("ten", "mười", "dix", "diez")]
DAYS = [("Monday", "thứ hai", "lundi", "lunes"), ("Tuesday", "thứ ba", "mardi", "martes"),
        ("Wednesday", "thứ tư", "mercredi", "miércoles"), ("Thursday", "thứ năm", "jeudi", "jueves"),
        ("Friday", "thứ sáu", "vendredi", "viernes"), ("Saturday", "thứ bảy", "samedi", "sábado"),
        ("Sunday", "chủ nhật", "dimanche", "domingo")]
PHRASES = [
    ("Good morning!", "Chào buổi sáng!", "Bonjour !", "¡Buenos días!"),
    ("Good evening!", "Chào buổi tối!", "Bonsoir !", "¡Buenas tardes!"),
    ("Good night!", "Chúc ngủ ngon!", "Bonne nuit !", "¡Buenas noches!"),
    ("Thank you very much!", "Cảm ơn rất nhiều!", "Merci beaucoup !", "¡Muchas gracias!"),
    ("You are welcome.", "Không có gì.", "De rien.", "De nada."),
    ("See you tomorrow!", "Hẹn gặp lại ngày mai!", "À demain !", "¡Hasta mañana!"),
    ("How are you?", "Bạn có khỏe không?", "Comment vas-tu ?", "¿Cómo estás?"),
    ("I am fine.", "Tôi khỏe.", "Je vais bien.", "Estoy bien."),
    ("What is your name?", "Bạn tên là gì?", "Comment t'appelles-tu ?", "¿Cómo te llamas?"),
    ("Where is the station?", "Nhà ga ở đâu?", "Où est la gare ?", "¿Dónde está la estación?"),
    ("I do not understand.", "Tôi không hiểu.", "Je ne comprends pas.", "No entiendo."),
    ("Please help me.", "Làm ơn giúp tôi.", "Aidez-moi, s'il vous plaît.", "Ayúdame, por favor."),
    ("I am sorry.", "Tôi xin lỗi.", "Je suis désolé.", "Lo siento."),
    ("It is raining.", "Trời đang mưa.", "Il pleut.", "Está lloviendo."),
    ("The sun is shining.", "Trời đang nắng.", "Le soleil brille.", "El sol brilla."),
    ("It is cold today.", "Hôm nay trời lạnh.", "Il fait froid aujourd'hui.", "Hoy hace frío."),
    ("It is hot today.", "Hôm nay trời nóng.", "Il fait chaud aujourd'hui.", "Hoy hace calor."),
    ("I am hungry.", "Tôi đói.", "J'ai faim.", "Tengo hambre."),
    ("I am thirsty.", "Tôi khát.", "J'ai soif.", "Tengo sed."),
    ("I love you.", "Tôi yêu bạn.", "Je t'aime.", "Te quiero."),
    ("Happy birthday!", "Chúc mừng sinh nhật!", "Joyeux anniversaire !", "¡Feliz cumpleaños!"),
    ("What time is it?", "Mấy giờ rồi?", "Quelle heure est-il ?", "¿Qué hora es?"),
    ("How much is it?", "Cái này giá bao nhiêu?", "Combien ça coûte ?", "¿Cuánto cuesta?"),
    ("I want to sleep.", "Tôi muốn ngủ.", "Je veux dormir.", "Quiero dormir."),
    ("I live in a small village.", "Tôi sống ở một ngôi làng nhỏ.", "J'habite dans un petit village.", "Vivo en un pueblo pequeño."),
    ("My mother is a teacher.", "Mẹ tôi là giáo viên.", "Ma mère est professeure.", "Mi madre es profesora."),
    ("My father is a doctor.", "Bố tôi là bác sĩ.", "Mon père est médecin.", "Mi padre es médico."),
    ("Welcome to our house.", "Chào mừng đến nhà chúng tôi.", "Bienvenue chez nous.", "Bienvenido a nuestra casa."),
]

GIRLS = ["Mia", "Lily", "Anna", "Nora", "Ruby", "Ella", "Linh", "Lan", "Rosa", "Clara", "Ivy", "Maya"]
BOYS = ["Tom", "Ben", "Sam", "Leo", "Max", "Finn", "Minh", "Nam", "Pablo", "Hugo", "Jack", "Omar"]
PET_NAMES = ["Pip", "Dot", "Milo", "Bramble", "Coco", "Hazel", "Tiko", "Pepper", "Sunny", "Momo"]

# question forms, short answer, full answer
FACTS = [
    (["What colour is the sky?", "Which colour is the sky on a clear day?"], "Blue", "On a clear day the sky is blue."),
    (["What colour is grass?", "Which colour is the grass?"], "Green", "Grass is green."),
    (["What colour is snow?", "Which colour is snow?"], "White", "Snow is white."),
    (["What colour is a banana?", "Which colour is a ripe banana?"], "Yellow", "A ripe banana is yellow."),
    (["What colour is the night?", "Which colour is the sky at night?"], "Black", "At night the sky is black."),
    (["What colour is a strawberry?", "Which colour is a ripe strawberry?"], "Red", "A ripe strawberry is red."),
    (["What do bees make?", "What do we get from bees?"], "Honey", "Bees make honey."),
    (["What do cows give us?", "What do we get from cows?"], "Milk", "Cows give us milk."),
    (["What do hens lay?", "What do we get from hens?"], "Eggs", "Hens lay eggs."),
    (["What do sheep give us?", "What do we get from sheep?"], "Wool", "Sheep give us wool."),
    (["Where do fish live?", "What is the home of a fish?"], "Water", "Fish live in the water."),
    (["Where do birds sleep?", "What is the home of a bird?"], "Nest", "Birds live in a nest."),
    (["Where do bears sleep in winter?", "What is the winter home of a bear?"], "Cave", "In winter a bear sleeps in a cave."),
    (["Where do foxes live?", "What is the home of a fox?"], "Den", "Foxes live in a den."),
    (["When do owls hunt?", "When is an owl awake?"], "Night", "Owls hunt at night."),
    (["What is frozen water?", "What do we call frozen water?"], "Ice", "Frozen water is called ice."),
    (["What falls from clouds?", "What do dark clouds bring?"], "Rain", "Rain falls from the clouds."),
    (["What gives us light in the day?", "What shines in the day?"], "Sun", "The sun gives us light in the day."),
    (["What shines at night?", "What gives us light at night?"], "Moon", "The moon shines at night."),
    (["How many days are in a week?", "How many days does a week have?"], "Seven", "A week has seven days."),
    (["How many months are in a year?", "How many months does a year have?"], "Twelve", "A year has twelve months."),
    (["How many hours are in a day?", "How many hours does a day have?"], "24", "A day has 24 hours."),
    (["How many minutes are in an hour?", "How many minutes does an hour have?"], "60", "An hour has 60 minutes."),
    (["How many legs does a spider have?", "Count the legs of a spider."], "Eight", "A spider has eight legs."),
    (["How many legs does a bee have?", "Count the legs of a bee."], "Six", "A bee has six legs."),
    (["How many legs does a dog have?", "Count the legs of a dog."], "Four", "A dog has four legs."),
    (["How many legs does a bird have?", "Count the legs of a bird."], "Two", "A bird has two legs."),
    (["How many seasons are there?", "How many seasons does a year have?"], "Four", "There are four seasons: spring, summer, autumn and winter."),
    (["What is the coldest season?", "Which season is the coldest?"], "Winter", "Winter is the coldest season."),
    (["What is the warmest season?", "Which season is the warmest?"], "Summer", "Summer is the warmest season."),
    (["What is the biggest animal on land?", "Which land animal is the biggest?"], "Elephant", "The elephant is the biggest animal on land."),
    (["What is the biggest animal in the sea?", "Which sea animal is the biggest?"], "Whale", "The blue whale is the biggest animal in the sea."),
    (["Which animal has a very long neck?", "What animal has a long neck?"], "Giraffe", "The giraffe has a very long neck."),
    (["What do plants need to grow?", "What helps a plant to grow?"], "Water", "Plants need water, light and good soil to grow."),
    (["What do we use to see?", "Which part of the body do we see with?"], "Eyes", "We see with our eyes."),
    (["What do we use to hear?", "Which part of the body do we hear with?"], "Ears", "We hear with our ears."),
    (["What is made from flour?", "What does a baker make?"], "Bread", "A baker makes bread from flour."),
    (["Who helps sick people?", "Who works in a hospital?"], "Doctor", "A doctor helps sick people."),
    (["Who teaches children?", "Who works in a school?"], "Teacher", "A teacher teaches children."),
    (["Where can I borrow a book?", "Which place has many books?"], "Library", "You can borrow a book in a library."),
]
CAPITALS = [("France", "Paris"), ("Vietnam", "Hanoi"), ("Spain", "Madrid"), ("England", "London"), ("Italy", "Rome"),
            ("Germany", "Berlin"), ("Japan", "Tokyo"), ("China", "Beijing"), ("Portugal", "Lisbon"), ("Greece", "Athens"),
            ("Egypt", "Cairo"), ("Mexico", "Mexico City"), ("Peru", "Lima"), ("Cuba", "Havana"), ("Austria", "Vienna"),
            ("Thailand", "Bangkok"), ("Norway", "Oslo"), ("Kenya", "Nairobi"), ("Ireland", "Dublin"), ("Canada", "Ottawa")]
OPPOSITES = [("big", "small"), ("hot", "cold"), ("fast", "slow"), ("happy", "sad"), ("day", "night"), ("up", "down"),
             ("open", "closed"), ("old", "young"), ("long", "short"), ("full", "empty"), ("light", "dark"), ("strong", "weak"),
             ("wet", "dry"), ("loud", "quiet"), ("near", "far"), ("early", "late")]
SOUNDS = [("cat", "meow"), ("dog", "woof"), ("cow", "moo"), ("duck", "quack"), ("sheep", "baa"), ("pig", "oink"),
          ("bee", "buzz"), ("lion", "roar"), ("owl", "hoot"), ("frog", "croak"), ("horse", "neigh"), ("mouse", "squeak")]
DEFINITIONS = [
    ("a fox", "A fox is a clever wild animal with red fur and a long tail."), ("a river", "A river is a long stream of water that runs to the sea."),
    ("a mountain", "A mountain is a very high hill made of rock."), ("an island", "An island is land with water all around it."),
    ("a forest", "A forest is a place with many trees and wild animals."), ("a cloud", "A cloud is made of tiny drops of water in the sky."),
    ("a rainbow", "A rainbow is a band of colours in the sky after the rain."), ("a star", "A star is a very hot ball of light, far away in space."),
    ("a friend", "A friend is someone who likes you and helps you."), ("a library", "A library is a place where people read and borrow books."),
    ("a bridge", "A bridge is a way to cross a river without getting wet."), ("an owl", "An owl is a bird with big eyes that hunts at night."),
    ("a turtle", "A turtle is a slow animal with a hard shell."), ("a kite", "A kite is a toy that flies in the wind on a long string."),
    ("a whale", "A whale is the biggest animal in the sea."), ("a desert", "A desert is a dry place with much sand and little rain."),
    ("a map", "A map is a picture that shows where places are."), ("a lighthouse", "A lighthouse is a tower with a bright light that helps ships at night."),
    ("a bakery", "A bakery is a shop that makes and sells bread and cakes."), ("winter", "Winter is the cold season, when it often snows."),
]
# the same small facts in the other languages: question, answer
FACTS_VI = [
    ("Bầu trời màu gì?", "Bầu trời màu xanh dương."), ("Cỏ màu gì?", "Cỏ màu xanh lá."), ("Tuyết màu gì?", "Tuyết màu trắng."),
    ("Quả chuối màu gì?", "Quả chuối màu vàng."), ("Một tuần có mấy ngày?", "Một tuần có bảy ngày."),
    ("Một năm có mấy tháng?", "Một năm có mười hai tháng."), ("Con chó có mấy chân?", "Con chó có bốn chân."),
    ("Con nhện có mấy chân?", "Con nhện có tám chân."), ("Con ong làm ra gì?", "Con ong làm ra mật ong."),
    ("Con bò cho ta gì?", "Con bò cho ta sữa."), ("Cá sống ở đâu?", "Cá sống ở dưới nước."),
    ("Thủ đô của Việt Nam là gì?", "Thủ đô của Việt Nam là Hà Nội."), ("Thủ đô của Pháp là gì?", "Thủ đô của Pháp là Paris."),
    ("Mùa nào lạnh nhất?", "Mùa đông lạnh nhất."), ("Con vật nào to nhất trên cạn?", "Con voi to nhất trên cạn."),
]
FACTS_FR = [
    ("De quelle couleur est le ciel ?", "Le ciel est bleu."), ("De quelle couleur est l'herbe ?", "L'herbe est verte."),
    ("De quelle couleur est la neige ?", "La neige est blanche."), ("De quelle couleur est la banane ?", "La banane est jaune."),
    ("Combien de jours y a-t-il dans une semaine ?", "Il y a sept jours dans une semaine."),
    ("Combien de mois y a-t-il dans une année ?", "Il y a douze mois dans une année."),
    ("Combien de pattes a le chien ?", "Le chien a quatre pattes."), ("Combien de pattes a l'araignée ?", "L'araignée a huit pattes."),
    ("Que font les abeilles ?", "Les abeilles font du miel."), ("Que donne la vache ?", "La vache donne du lait."),
    ("Où vivent les poissons ?", "Les poissons vivent dans l'eau."), ("Quelle est la capitale de la France ?", "La capitale de la France est Paris."),
    ("Quelle est la capitale de l'Espagne ?", "La capitale de l'Espagne est Madrid."), ("Quelle saison est la plus froide ?", "L'hiver est la saison la plus froide."),
]
FACTS_ES = [
    ("¿De qué color es el cielo?", "El cielo es azul."), ("¿De qué color es la hierba?", "La hierba es verde."),
    ("¿De qué color es la nieve?", "La nieve es blanca."), ("¿De qué color es el plátano?", "El plátano es amarillo."),
    ("¿Cuántos días tiene una semana?", "Una semana tiene siete días."), ("¿Cuántos meses tiene un año?", "Un año tiene doce meses."),
    ("¿Cuántas patas tiene el perro?", "El perro tiene cuatro patas."), ("¿Cuántas patas tiene la araña?", "La araña tiene ocho patas."),
    ("¿Qué hacen las abejas?", "Las abejas hacen miel."), ("¿Qué da la vaca?", "La vaca da leche."),
    ("¿Dónde viven los peces?", "Los peces viven en el agua."), ("¿Cuál es la capital de España?", "La capital de España es Madrid."),
    ("¿Cuál es la capital de Francia?", "La capital de Francia es París."), ("¿Qué estación es la más fría?", "El invierno es la estación más fría."),
]
UNKNOWN_TOPICS = [
    "the stock market", "quantum physics", "the price of gold", "the next election", "football results", "my tax return", "the weather in New York",
    "computer programming", "chemistry", "ancient history", "the news today", "train tickets", "a lawyer", "medicine", "rocket engines", "the internet",
    "my bank account", "the latest films", "politics", "cooking a turkey", "black holes", "the Roman empire", "the human brain", "electric cars",
    "a famous singer", "how to fix my phone", "the meaning of life", "the speed of light", "dinosaurs", "algebra", "a hotel in Paris", "machine learning",
]
