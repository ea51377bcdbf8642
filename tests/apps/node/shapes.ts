// What `npm run build` compiles and bundles.
import * as fs from 'node:fs';
import lodash = require('lodash');

interface Shape { readonly name: string; area(): number }
class Square implements Shape {
  readonly name = 'square';
  constructor(private readonly side: number) {}
  area(): number { return this.side ** 2; }
}
class Circle implements Shape {
  readonly name = 'circle';
  constructor(private readonly radius: number) {}
  area(): number { return Math.round(Math.PI * this.radius ** 2); }
}
const shapes: Shape[] = [new Square(3), new Circle(2)];
const total = lodash.sum(shapes.map((shape) => shape.area()));
fs.writeSync(1, `${shapes.map((shape) => shape.name).join(' ')} ${total}\n`);
