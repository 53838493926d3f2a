r"""Pairs of answers that mean the same and pairs that do not, as models and benchmarks write them, one on a line.

Longer than other files since it is one table: a pair is looked for, and added, in one place.
"""

from __future__ import annotations

_EQUAL = r"""
1\,234 ||| 1234
31.\overline{6} ||| 95/3
0.\overline{3} ||| 1/3
0.333... ||| \frac13
cos(x) ||| \cos x
sqrt(3) ||| \sqrt{3}
1 1/2 ||| \frac{3}{2}
2=x ||| x=2
74° ||| 74^\circ
\frac12\% ||| 0.005
E' ||| E'
10^{10^{10^{10}}} ||| 10^{10^{10^{10}}}
\binom{10}{3} ||| 120
5! ||| 120
\{1,2,3\} ||| \{3,1,2\}
(1,2) ||| (1, 2)
[0,1)\cup[1,2] ||| [0,2]
x\in(-\infty,3) ||| x<3
(-\infty,5)\cup(5,\infty) ||| x\neq 5
\mathbb{R}\setminus\{2\} ||| (-\infty,2)\cup(2,\infty)
1\le x<4 ||| [1,4)
\pm 3 ||| 3, -3
x=\pm\sqrt2 ||| \{-\sqrt{2},\sqrt{2}\}
\frac{1\pm\sqrt5}{2} ||| \frac{1+\sqrt{5}}{2}, \frac{1-\sqrt{5}}{2}
\sin^2 x+\cos^2 x ||| 1
e^{i\pi} ||| -1
2+3i ||| 3i+2
\frac{1}{2+i} ||| \frac{2-i}{5}
\log_2 8 ||| 3
\ln e^2 ||| 2
\sqrt[3]{27} ||| 3
|{-5}| ||| 5
\left|x-2\right| ||| |2-x|
\frac{x^2-1}{x-1} ||| x+1
(x-1)(x+1) ||| x^2-1
3x+2y=6 ||| y=-\frac32x+3
2x<6 ||| x<3
\begin{pmatrix}1\\2\end{pmatrix} ||| (1,2)
\frac15\begin{pmatrix}1\\-18\end{pmatrix} ||| \begin{pmatrix}1/5\\-18/5\end{pmatrix}
\begin{vmatrix}2&1\\1&2\end{vmatrix} ||| 3
10\text{ cm} ||| 10
10\text{ cm} ||| 10\,\mathrm{cm}
\$1,234.50 ||| 1234.5
5 dollars ||| \$5
50\% ||| \frac12
50\% ||| 50
1.5\times10^3 ||| 1500
1e3 ||| 1000
1.2e-3 ||| 0.0012
6.02 \times 10^{23} ||| 6.02e23
204_5 ||| 54
1111_2 ||| 15
\text{east} ||| East
\text{no solution} ||| \emptyset
\text{No real solutions} ||| no solution
x=1\text{ or }x=2 ||| 1,2
1\text{ and }2 ||| 2, 1
(1,2),(3,4) ||| (3,4),(1,2)
f(x)=x^2+1 ||| x^2+1
y=2x+1 ||| 2x+1
f(x)=2x+1 ||| y=2x+1
\angle ABC=60^\circ ||| 60
60^\circ ||| \frac{\pi}{3}
\sin 30^\circ ||| \frac12
3\pi/4 ||| \frac{3\pi}{4}
12\pi ||| 12π
2\sqrt{2} ||| \sqrt{8}
2√5 ||| \sqrt{20}
\frac{\sqrt3}{3} ||| \frac{1}{\sqrt{3}}
x^{1/2} ||| \sqrt{x}
a^{-1} ||| \frac1a
n(n+1)/2 ||| \frac{n^2+n}{2}
\frac{n!}{(n-1)!} ||| n
2^{n+1} ||| 2\cdot2^n
\sum_{i=1}^{10} i ||| 55
\tan^{-1}(1) ||| \frac{\pi}{4}
\arctan 1 ||| \pi/4
0.1667 ||| \frac16
3.1416 ||| \pi
-0 ||| 0
+5 ||| 5
5. ||| 5
.5 ||| 0.5
007 ||| 7
1{,}000 ||| 1000
1 000 ||| 1000
12,345,678 ||| 12345678
\text{(B)} ||| B
\mathbf{B} ||| B
(C) ||| C
\boxed{5} ||| 5
x>=2 ||| x\ge2
3:2 ||| 3:2
\dfrac{7}{8}\text{ miles} ||| 7/8
\frac{3}{4} \text{ of a mile} ||| 3/4
15\text{ minutes} ||| 15 min
\lfloor 3.7\rfloor ||| 3
\gcd(12,18) ||| 6
x \mapsto 2x ||| x \mapsto 2x
\overline{AB} ||| \overline{AB}
\frac{dy}{dx}=2x ||| 2x
P(A)=\frac13 ||| 1/3
\text{Area}=12 ||| 12
S_n=n^2 ||| n^2
a_n = 2n-1 ||| 2n-1
(x-2)^2+(y+1)^2=9 ||| x^2-4x+y^2+2y-4=0
\frac{x^2}{4}+\frac{y^2}{9}=1 ||| 9x^2+4y^2=36
k=3 ||| 3
-\frac{1}{2} ||| \frac{-1}{2}
-\frac{1}{2} ||| \frac{1}{-2}
\frac{-\sqrt{3}}{2} ||| -\frac{\sqrt3}{2}
1-\frac{1}{e} ||| \frac{e-1}{e}
e^{x+y} ||| e^xe^y
\ln 6 ||| \ln 2+\ln 3
2\cos^2 x-1 ||| \cos 2x
\sqrt{3+2\sqrt2} ||| 1+\sqrt2
\frac{10!}{5!5!} ||| 252
x_1=2,x_2=3 ||| 2,3
x=2,y=3 ||| (2,3)
(x,y)=(2,3) ||| x=2,y=3
3\text{ or }5 ||| \{3,5\}
\infty ||| +\infty
-\infty ||| -\infty
90^\circ ||| 90 degrees
x \equiv 3 \pmod 7 ||| 3 \pmod{7}
x\equiv 3\pmod{7} ||| 3
\langle 1,2,3\rangle ||| (1,2,3)
\begin{bmatrix}1&2\end{bmatrix} ||| (1,2)
2e^{i\pi/3} ||| 1+i\sqrt{3}
\cos 60^\circ ||| 0.5
\text{All real numbers} ||| \mathbb{R}
(-\infty,\infty) ||| \mathbb{R}
\text{True} ||| true
x>0 ||| (0,\infty)
0<x ||| x>0
x\in\{1,2\} ||| \{1,2\}
x=1,\ y=2 ||| (1,2)
(x,y)=(1,2) ||| (1,2)
x=1 \text{ and } x=2 ||| \{1,2\}
12\text{ (since the sum is 12)} ||| 12
3\text{ units}^2 ||| 3
\frac{3}{4}\text{ m/s} ||| \frac34
9.8\ \mathrm{m/s^2} ||| 9.8
6.63\times10^{-34}\ \mathrm{J\cdot s} ||| 6.63e-34
\$3.50 ||| 3.5
3.50 dollars ||| \$3.50
\frac{-b\pm\sqrt{b^2-4ac}}{2a} ||| \frac{-b+\sqrt{b^2-4ac}}{2a},\frac{-b-\sqrt{b^2-4ac}}{2a}
(x-1)(x-2)(x-3) ||| x^3-6x^2+11x-6
\sqrt{50} ||| 5\sqrt2
5^{1/2} ||| \sqrt{5}
\log_{10}100 ||| 2
\ln(e) ||| 1
\sqrt[4]{16} ||| 2
\frac{\pi}{6}+2\pi k ||| 2\pi k+\frac{\pi}{6}
n^2-n ||| n(n-1)
a_n=\frac{1}{n} ||| \frac1n
f^{-1}(x)=\frac{x-1}{2} ||| \frac{x-1}{2}
\binom{n}{2} ||| \frac{n(n-1)}{2}
2^{10} ||| 1024
1,000,000 ||| 10^6
0.5 ||| 50\%
\tfrac{22}{7} ||| 22/7
\sqrt{x^2+1} ||| (x^2+1)^{1/2}
sqrt(2)/2 ||| \frac{\sqrt2}{2}
pi/4 ||| \frac{\pi}{4}
x**2+1 ||| x^2+1
[1, 2, 3] ||| 1,2,3
[1,2,3] ||| (1,2,3)
2*pi ||| 2\pi
(3)(4) ||| 12
-(-3) ||| 3
3! ||| 6
1/(2*sqrt(3)) ||| \frac{\sqrt3}{6}
\left(\frac{1}{2}\right)^3 ||| \frac18
0.125 ||| \frac18
\{x : x > 3\} ||| \{x : x > 3\}
2:3 ||| 2 : 3
10:30 ||| 10:30
10:30 \text{ am} ||| 10:30 am
\text{Tuesday} ||| tuesday
\textbf{(C)} ||| C
C) 12 ||| C) 12
y = -2x + 5 ||| 2x+y=5
y-5=-2x ||| y=5-2x
\frac{dy}{dx} = 3x^2 ||| 3x^2
v = \sqrt{2gh} ||| \sqrt{2gh}
\frac{1}{2}mv^2 ||| \frac{mv^2}{2}
E=mc^2 ||| mc^2
\mu_0 I/(2\pi r) ||| \frac{\mu_0 I}{2\pi r}
\frac{GMm}{r^2} ||| GMm/r^2
\hbar\omega ||| \omega\hbar
\theta=\arctan(\mu) ||| \tan^{-1}\mu
\sqrt{\frac{k}{m}} ||| \sqrt{k/m}
\lambda/2 ||| \frac{\lambda}{2}
|z|=2 ||| 2
S=\{1,2\} ||| \{1,2\}
\{(1,2),(3,4)\} ||| (1,2),(3,4)
\left\{-\frac12,3\right\} ||| x=-\frac12, 3
x = -1/2 or x = 3 ||| \{3,-\frac12\}
x\le -2 \text{ or } x\ge 2 ||| (-\infty,-2]\cup[2,\infty)
-2\le x\le 2 ||| [-2,2]
2 \geq x \geq -2 ||| [-2,2]
(0,1)\cup(1,2) ||| (0,2)\setminus\{1\}
\emptyset ||| \varnothing
\{ \} ||| \emptyset
0.\overline{142857} ||| \frac17
1.\overline{3} ||| 4/3
0.1\overline{6} ||| \frac16
\frac{1}{3}\pi r^3 ||| \frac{\pi r^3}{3}
4\pi\text{ cm}^2 ||| 4\pi
36\pi \text{ cubic inches} ||| 36\pi
7\frac12 ||| 7.5
7 1/2 ||| 15/2
-1\frac12 ||| -1.5
\sin x\cos x ||| \frac12\sin 2x
\tan x ||| \frac{\sin x}{\cos x}
e^{2\ln x} ||| x^2
\frac{1}{1-x} ||| -\frac{1}{x-1}
\frac{a}{b}+\frac{c}{d} ||| \frac{ad+bc}{bd}
2\sin\frac{x}{2}\cos\frac{x}{2} ||| \sin x
$12$ ||| 12
\(12\) ||| 12
12. ||| 12
12\, ||| 12
\,12 ||| 12
\boxed{12} ||| 12
= 12 ||| 12
x==3 ||| 3
\$12 ||| 12\text{ dollars}
1.23e5 ||| 123000
1\cdot10^5 ||| 100000
3\times 4 ||| 12
100_2 ||| 4
\mathrm{A} ||| A
A,B ||| B, A
\frac{\sqrt{6}+\sqrt{2}}{4} ||| \cos 15^\circ
\sqrt{2+\sqrt3} ||| \frac{\sqrt6+\sqrt2}{2}
(1+\sqrt5)/2 ||| \frac{1+\sqrt{5}}{2}
\frac{3+4i}{5} ||| 0.6+0.8i
i^2 ||| -1
\overline{z} ||| \bar{z}
\infty ||| infinity
2^{n}-1 ||| -1+2^n
n\ge 3 ||| n \geq 3
\frac{n(n+1)(2n+1)}{6} ||| \frac{2n^3+3n^2+n}{6}
1.5 x 10^3 ||| 1500
minus 5 ||| -5
\text{minus }5 ||| -5
5\text{ million} ||| 5000000
2 dozen ||| 24
3\text{ square centimeters} ||| 3\text{ cm}^2
AB ||| BA
\sqrt{(x-3)^2} ||| |3-x|
60\text{ km/h} ||| 60\text{ kilometers per hour}
5\text{ apples} ||| 5\text{ fruits}
5.50 per pound ||| 5.5
12 (since 3*4=12) ||| 12
0.5000000000000000000000000000000000000000000000000000000000000000000000000001 ||| 1/2
x=1,2 ||| x=2,1
\pm1\pm\sqrt2 ||| 1+\sqrt2,1-\sqrt2,-1+\sqrt2,-1-\sqrt2
\pm\sqrt{2\pm\sqrt3} ||| \sqrt{2+\sqrt3},-\sqrt{2+\sqrt3},\sqrt{2-\sqrt3},-\sqrt{2-\sqrt3}
(\pm1,\pm2) ||| (1,2),(-1,-2)
1\pm2\mp3 ||| 0,2
\{1\pm\sqrt5,-2\} ||| \{-2,1-\sqrt5,1+\sqrt5\}
\vec a\times\vec b ||| \vec a \times \vec b
|x|<2 ||| -2<x<2
|x|<2 ||| (-2,2)
2>|x| ||| (-2,2)
|x-1|\ge 3 ||| (-\infty,-2]\cup[4,\infty)
[0,2]\setminus[1,2] ||| [0,1)
\mathbb{R}\setminus(0,1) ||| (-\infty,0]\cup[1,\infty)
(0,3)\cap[1,5] ||| [1,3)
\mathbb{R}\setminus\{1,2\} ||| (-\infty,1)\cup(1,2)\cup(2,\infty)
\sqrt{2^{10000}} ||| 2^{5000}
100!\pi ||| \pi\cdot100!
|x|=2 ||| x=\pm2
2=|x| ||| x=2\text{ or }x=-2
|AB|=5 ||| 5
|z|=5 ||| 5
x=\pm 2 ||| \pm 2
y=1, x=\pm2 ||| x=\pm2, y=1
5\text{ m/s}^2 ||| 5\text{ m s}^{-2}
5\text{ meters per second squared} ||| 5\text{ m/s}^2
3\text{ kg}\cdot\text{m}^2 ||| 3\text{ kg m}^2
5\text{ MHz} ||| 5\text{ megahertz}
5\text{ min} ||| 5\text{ minutes}
5\text{ sec} ||| 5\text{ s}
5\mathrm{~m} ||| 5\text{ meters}
5\text{ N} ||| 5
4\pi\text{ m} ||| 4\pi
2\text{min}(1,3) ||| 2
20^\circ\text{C} ||| 20
180^\circ ||| \pi\text{ rad}
5\text{ m/s left} ||| 5\text{ m/s to the left}
\text{Domain: }(3,\infty) ||| x>3
\text{Amy: }3, \text{Bob: }5 ||| \text{Bob: }5, \text{Amy: }3
\text{Amy}=3, \text{Bob}=5 ||| 3, 5
\text{Area}=5 ||| \text{The area}=5
\text{Answer: }5, 6 ||| 5, 6
3 apples and 5 oranges ||| 5 oranges and 3 apples
5/1/2021 ||| 05/01/2021
5\,\text{m} ||| 5
9.8 \mathrm{~m} \mathrm{~s}^{-2} ||| 9.8\text{ m/s}^2
50\text{ mph} ||| 50\text{ miles per hour}
10\text{ cc} ||| 10\text{ cm}^3
1 hour 30 minutes ||| 1 hr 30 min
\angle ABC ||| \angle CBA
\angle ABC=30^\circ ||| 30^\circ
17 \bmod 5 ||| 2
x>1 and x<2 ||| (1,2)
x>1 \text{ and } x<2 ||| 1<x<2
３ ||| 3
½ ||| 0.5
3½ ||| 3.5
\frac{dy}{dx}=2x ||| 2x
(0,2]\cap[0,2) ||| (0,2)
[0,2]\cap[2,3] ||| \{2\}
[0,2)\cup[1,2] ||| [0,2]
(0,1)\cup[0,2] ||| [0,2]
3.14159 ||| 3.1415927
\lg 100 ||| 2
\csc 30^\circ ||| 2
(-32)^{1/5} ||| -2
\sum_{i=1}^{100} i ||| 5050
\sqrt2\approx1.41 ||| \sqrt2
"""

_DIFFERENT = r"""
2x ||| 2 x 10
|x-100| ||| 100-x
\sqrt{(x-3)^2} ||| 3-x
\max(x,3) ||| 3
minus 5 ||| 5
\text{not }5 ||| 5
\text{at least }5 ||| \text{at most }5
\text{less than }5 ||| 5
5\text{ million} ||| 5
5\text{ million} ||| 5\text{ billion}
5\text{ square meters} ||| 5\text{ square feet}
5\text{ cm}^2 ||| 5\text{ cm}^3
3\text{ am} ||| 3\text{ pm}
10^{40}+x ||| 10^{40}+2x
x+10^{-40} ||| x
e^{-1000} ||| e^{-1001}
e^{-1000} ||| 0
f'(x)=2x ||| f(x)=2x
\frac{dy}{dx}=2x ||| y=2x
f(x)=2x ||| g(x)=2x
P(A)=\frac12 ||| P(B)=\frac12
|x|=2 ||| x=2
ax=6 ||| 6
HHT ||| HTH
TFF ||| FTF
[0,5]\setminus[2,3] ||| [2,3]\setminus[0,5]
60\text{ km/h} ||| 60\text{ m/s}
60\text{ km/h} ||| 60\text{ km}
1234 ||| 235
1e-7 ||| 2e-7
31.\overline{6} ||| 31
E ||| E'
\text{east} ||| west
(0,1) ||| [0,1]
[0,1) ||| [0,1]
x<5 ||| x>5
x\le5 ||| x<5
\binom{10^6}{500000} ||| 1
2^{1000}+1 ||| 2^{1000}
10^{10^{10^{10}}} ||| 10^{10}
1/3 ||| 0.33
1/3 ||| 0.334
\pi ||| 3.14
\pi ||| 22/7
(1,2) ||| (2,1)
(1,2,3) ||| (1,3,2)
1,2,3 ||| 1,2
1,2,2 ||| 1,2
x=3 ||| y=3
\sqrt{x^2} ||| x
|x| ||| x
x^2 ||| x^3
\sin x ||| \cos x
x+1 ||| x
\frac{1}{2} ||| -\frac12
e^{-200} ||| e^{-201}
10^{-40} ||| 0
x^2+y^2=1 ||| x^2-y^2=1
2x+z=1 ||| 1
1\pm\sqrt2 ||| 1+\sqrt2
\{1,2\} ||| \{1,3\}
10\text{ cm} ||| 10\text{ m}
50\% ||| 5
12:00 ||| 1:00
3:2 ||| 2:3
25 ||| 25.5
1000 ||| 1000.5
99999999999 ||| 100000000000
0.12345 ||| 0.12346
1.5 ||| 2
204_5 ||| 204_6
\text{odd} ||| even
abc ||| abd
\begin{pmatrix}1&2\\3&4\end{pmatrix} ||| \begin{pmatrix}1&3\\2&4\end{pmatrix}
(-\infty,3) ||| (-\infty,3]
x\ne5 ||| x=5
i ||| -i
\ln 2 ||| \log_{10} 2
-x>-1 ||| x>1
5,7 ||| 57
1,23 ||| 123
3\frac12 ||| \frac32
2n+1 ||| 2n-1
f(x)=x+1 ||| x-1
seat ||| east
5x-7y+11z+4=0 ||| 5x-7y+11z-4=0
E ||| 2E
A ||| B
AB ||| CD
n! ||| (n+1)!
\text{yes} ||| no
 ||| 5
\{\} ||| \{0\}
\emptyset ||| 0
x^{10} ||| x^1 0
x\equiv3\pmod 7 ||| x\equiv 4\pmod 7
x\equiv3\pmod 7 ||| x\equiv 3\pmod 5
\mathbb{R} ||| (0,\infty)
\text{True} ||| false
x>0 ||| x\ge0
[0,\infty) ||| (0,\infty)
x=1, y=2 ||| (2,1)
3\text{ m} ||| 3\text{ kg}
5 ||| 5i
2+3i ||| 2-3i
\sqrt{2} ||| 1.5
\sqrt2 ||| 1.41
10:30 ||| 10:31
\text{Tuesday} ||| Thursday
y=2x+1 ||| y=2x-1
y=2x ||| x=2y
E=mc^2 ||| mc
\{1,2\} ||| (1,2]
(0,1)\cup(1,2) ||| (0,2)
\{(1,2),(3,4)\} ||| (2,1),(4,3)
x\le-2\text{ or }x\ge2 ||| [-2,2]
0.1\overline{6} ||| 0.16
7\frac12 ||| \frac72
-1\frac12 ||| -0.5
\sin x ||| \sin 2x
\ln x ||| \log_2 x
e^x ||| x^e
2^{n} ||| n^2
A,B ||| A,C
A ||| A,B
100_2 ||| 100_3
1.23e5 ||| 1.23e6
0.001 ||| 0.0012
1000000 ||| 1000001
\frac{22}{7} ||| 3.14
\pi ||| 3.15
\frac13 ||| 0.3
\frac23 ||| 0.66
\frac23 ||| 0.667
2\pi ||| 6.28
n>3 ||| n<3
\text{no solution} ||| 0
\emptyset ||| \{0\}
\text{yes} ||| \text{no}
a ||| b
x ||| 2x
x+y ||| x-y
xy ||| x/y
\frac{a}{b} ||| \frac{b}{a}
(a+b)^2 ||| a^2+b^2
\sqrt{a+b} ||| \sqrt a+\sqrt b
|x-2| ||| x-2
\begin{pmatrix}1&0\\0&1\end{pmatrix} ||| \begin{pmatrix}0&1\\1&0\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix} ||| \begin{pmatrix}1\\2\\3\end{pmatrix}
(1,2) ||| \{1,2\}
[1,2] ||| \{1,2\}
1 ||| 1,1
\pm1 ||| 1
\frac{\pi}{6} ||| 30
90^\circ ||| \pi
50\% ||| 0.05
1/2 ||| 1/2, 1/3
\text{Alice} ||| \text{Bob}
12 ||| 12x
12 ||| x
0 ||| x
3 ||| \text{three}
0.3333 ||| 0.3334
99.9 ||| 100
x^2+1=0 ||| x^2+2=0
x^2=4 ||| x=2
f(x)=2 ||| f(x)=3
5:2 ||| 2.6
\binom{5}{2} ||| \binom{5}{1}
3! ||| 3
\lfloor 2.7\rfloor ||| 3
x>3 ||| y>3
x=1,2 ||| y=1,2
\pm1\pm\sqrt2 ||| 1+\sqrt2,-1-\sqrt2
|x|<2 ||| x<2
|x|\le2 ||| (-2,2)
\mathbb{R}\setminus[0,1] ||| (-\infty,0]\cup[1,\infty)
\sqrt{2^{10000}+1} ||| 2^{5000}
10^{40}\sqrt2+1 ||| 10^{40}\sqrt{2}
-2^2 ||| 4
2^{3^2} ||| 64
\sin x^2 ||| \sin^2 x
10:30 ||| 10.30
(1,2),(3,4) ||| (1,2),(4,3)
a^{b^c} ||| (a^b)^c
x=1,y=2 ||| x=2,y=1
2k\pi, k\in\mathbb{Z} ||| k\pi, k\in\mathbb{Z}
\sin 1 ||| \sin 1^\circ
1<x<2 ||| 2<x<1
|x|=2 ||| 2
|x|=2 ||| x=2
|x|=2 ||| |y|=2
x=\pm2 ||| y=\pm2
0,5 ||| (0,5]
1,5 ||| [1,5)
30^\circ ||| 30\text{ rad}
50^\circ ||| 50\%
20^\circ\text{C} ||| 20^\circ\text{F}
5\text{ MeV} ||| 5\text{ eV}
5\text{ MW} ||| 5\text{ mW}
5\text{ kJ} ||| 5\text{ joules}
5\text{ V} ||| 5\text{ A}
5\text{ m/s} ||| 5\text{ m/s}^2
5\text{ m/s}^2 ||| 5\text{ m s}^2
3\text{ March} ||| 3\text{ May}
30^\circ\text{ north of east} ||| 30^\circ\text{ east of north}
5\text{ m/s upward} ||| 5\text{ m/s downward}
10\%\text{ increase} ||| 10\%\text{ decrease}
10\%\text{ increase} ||| 10\text{ m}
2\text{ if }n\text{ is even} ||| 2\text{ if }n\text{ is odd}
2\text{ out of }5 ||| 2\text{ out of }3
\text{Domain: }(3,\infty) ||| x\ge3
\text{maximum } 3 ||| \text{minimum } 3
\text{Amy: }3, \text{Bob: }5 ||| \text{Amy: }5, \text{Bob: }3
\text{length}=3, \text{width}=5 ||| \text{length}=5, \text{width}=3
5 apples and 3 oranges ||| 3 apples and 5 oranges
05/01/2021 ||| 10/02/2021
2020-01-05 ||| 2020-05-01
5\text{ or more} ||| 5
5\text{ or more} ||| 5\text{ or less}
1 hour 30 minutes ||| 1
\frac{dy}{dx} ||| \frac{y}{x}
\angle ABC ||| \angle ACB
16 \bmod 5 ||| 16
x>1, x<2 ||| (1,2)
x>y ||| x<y
2x+3y<6 ||| 2x+3y>6
x^2+y^2<4 ||| x^2+y^2>4
3.142 ||| 3.1418
11.9999500 ||| 12
f'(x)=2x ||| y=2x
"""


def _pairs(table: str) -> list[tuple[str, str]]:
    return [
        (left, right) for left, _, right in (line.partition(" ||| ") for line in table.strip().splitlines())
    ]


EQUAL, DIFFERENT = _pairs(_EQUAL), _pairs(_DIFFERENT)
